import os
import string
from pathlib import Path

import pytest
from erg_server.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.layout import (
    MAX_TEXT_BYTES,
    check_name,
    check_relative,
    choose_versions,
    contained_path,
    is_name,
    parse_version,
    read_text,
    versions_on_disk,
)
from hypothesis import given
from hypothesis import strategies as st

ALLOWED = string.ascii_letters + string.digits + "._-"


@given(st.text(max_size=140))
def test_a_name_is_one_plain_path_component(name: str) -> None:
    if is_name(name):
        assert set(name) <= set(ALLOWED)
        assert name[0] not in "._-"
        assert Path(name).parts == (name,)
        assert check_name(name) == name
    else:
        with pytest.raises(InvalidArgumentError):
            check_name(name)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_names_of_the_allow_list_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "a\n", "a\0", "é", "a" * 129])
def test_names_off_the_allow_list_are_refused(name: str) -> None:
    assert not is_name(name)


@given(st.lists(st.sampled_from(["..", ".", "a", "b.c", "", "/", "\\", "\0"]), max_size=6).map("/".join))
def test_no_accepted_path_leaves_its_folder(relative: str) -> None:
    try:
        path = check_relative(relative)
    except InvalidArgumentError:
        return
    assert os.path.normpath(Path("/root") / path).startswith("/root/")


def test_contained_path_finds_what_is_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    assert contained_path(tmp_path, "a/file") == tmp_path / "a" / "file"
    with pytest.raises(NotFoundError):
        contained_path(tmp_path, "a/other")
    with pytest.raises(NotFoundError):
        contained_path(tmp_path, "a/file/below")


def test_contained_path_follows_no_link_even_to_the_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "file").write_text("x")
    (tmp_path / "secret").write_text("x")
    (root / "folder").symlink_to("real")
    (root / "file").symlink_to(tmp_path / "secret")
    for relative in ("folder/file", "file", "folder"):
        with pytest.raises(InvalidArgumentError, match="symbolic link"):
            contained_path(root, relative)


def test_contained_path_refuses_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidArgumentError):
        contained_path(tmp_path, "pipe")
    with pytest.raises(InvalidArgumentError):
        read_text(tmp_path / "pipe")


def test_read_text_refuses_links_large_files_and_foreign_encodings(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MAX_TEXT_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "link").symlink_to("latin")
    with pytest.raises(ResourceExhaustedError):
        read_text(tmp_path / "large")
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        read_text(tmp_path / "latin")
    with pytest.raises(InvalidArgumentError):
        read_text(tmp_path / "link")


@pytest.mark.parametrize("name", ["0", "01", "-1", "+1", "1.0", "\uff11", "9223372036854775808", "1 ", ""])
def test_what_is_no_version(name: str) -> None:
    assert parse_version(name) is None


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_every_positive_integer_is_a_version(number: int) -> None:
    assert parse_version(str(number)) == number


def test_versions_are_folders_and_sorted_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "x", "03"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    (tmp_path / "7").symlink_to("9")
    assert versions_on_disk(tmp_path) == (9, 10)


def test_version_policies() -> None:
    policy = pb.ModelVersionPolicy
    available = (1, 3, 7)
    assert choose_versions(policy(), available) == (7,)
    assert choose_versions(policy(latest=policy.Latest(num_versions=2)), available) == (3, 7)
    assert choose_versions(policy(latest=policy.Latest(num_versions=9)), available) == available
    assert choose_versions(policy(all=policy.All()), available) == available
    assert choose_versions(policy(specific=policy.Specific(versions=[3, 1])), available) == (1, 3)
    assert choose_versions(policy(), ()) == ()
    with pytest.raises(NotFoundError, match=r"\[4\]"):
        choose_versions(policy(specific=policy.Specific(versions=[3, 4])), available)
