"""The command line: grouped help, and mistakes told in one line with an exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from erg_server import __version__
from erg_server.cli import main
from erg_server.settings import setting_fields


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def run_erg(*arguments: str, **env: str) -> tuple[int, str, str]:
    """`erg` in a process of its own: exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "erg_server", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | env,
    )
    return done.returncode, done.stdout, done.stderr


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments, terminal_width=200)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_helps_examples_stand_on_lines_of_their_own() -> None:
    text = invoke("serve", "--help")[1]
    assert "\n    ERG_GRPC_PORT=9000 erg serve --settings erg.toml\n" in text
    assert "\\b" not in text


def test_help_lists_every_flag_under_the_heading_of_its_group() -> None:
    status, text = invoke("serve", "--help")
    assert status == 0
    headings = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    groups = list(dict.fromkeys(item.metadata["group"] for item in setting_fields()))
    assert [heading for heading in headings if heading in groups] == groups
    for group in groups:
        section = text.split(f"\n{group}:\n", 1)[1].split("\n\n", 1)[0]
        for item in setting_fields():
            flag = f"--{item.name.replace('_', '-')}"
            assert (f"  {flag} " in section or f"  {flag} /" in section) == (item.metadata["group"] == group), flag
            if item.metadata["group"] == group:
                assert f"ERG_{item.name.upper()}" in section


def test_the_command_names_its_version_and_its_subcommands() -> None:
    assert __version__ in invoke("--version")[1]
    text = invoke("--help")[1]
    for name in ("serve", "check", "convert", "load"):
        assert f"\n  {name} " in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no model repository: give --model-repository"),
        (("--model-repository", "/no/such"), "--model-repository /no/such: there is no such folder"),
        (("--model-repository", ".", "--grpc-port", "x"), "'x' is not a valid integer"),
        (("--model-repository", ".", "--grpc-port", "70000"), "--grpc-port is a port"),
        (("--model-repository", ".", "--model-control-mode", "exlicit"), "'exlicit' is not one of"),
        (("--model-repository", ".", "--grpc-prot", "1"), "'--grpc-port'"),
        (("--model-repository", ".", "--log-file", "/no/such/log"), "log_file '/no/such/log': No such file"),
        (("--settings", "/no/such.toml"), "/no/such.toml"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_an_exit_code(flags: tuple[str, ...], message: str) -> None:
    status, text = invoke("serve", *flags)
    assert status in {1, 2}
    (line,) = [line for line in text.splitlines() if line.startswith("Error: ")]
    assert message in line


@pytest.mark.parametrize("which", ["grpc", "metrics"])
def test_a_port_in_use_is_told_with_the_flag_to_change(tmp_path: Path, taken_port: int, which: str) -> None:
    other = "metrics" if which == "grpc" else "grpc"
    status, _, errors = run_erg(
        "serve", "--model-repository", str(tmp_path), "--cpu-workers", "1",
        f"--{which}-address", "127.0.0.1", f"--{which}-port", str(taken_port),
        f"--{other}-address", "127.0.0.1", f"--{other}-port", "0",
    )  # fmt: skip
    assert status == 1
    assert "Traceback" not in errors
    line = errors.splitlines()[-1]
    assert line.startswith("Error: ")
    assert f"127.0.0.1:{taken_port}" in line
    assert f"--{which}-port" in line


def test_serve_does_not_load_what_only_other_commands_need() -> None:
    code = (
        "import sys; from erg_server.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'grpc', 'onnx', 'erg_converters'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
