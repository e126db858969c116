"""Logging that changes while the server runs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.telemetry.logs import LogControl, LogSettings

LOG = logging.getLogger("erg_server.models.loader")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[LogControl]:
    logger = logging.getLogger("erg_server")
    before = logger.level, logger.propagate
    subject = LogControl(LogSettings(file=str(tmp_path / "erg.log")))
    yield subject
    subject.close()
    logger.level, logger.propagate = before
    logger.manager._clear_cache()  # type: ignore[attr-defined]


def lines(control: LogControl) -> list[str]:
    return Path(control.settings.file).read_text(encoding="utf-8").splitlines()


def say_everything() -> None:
    LOG.debug("detail")
    LOG.info("news")
    LOG.warning("doubt")
    LOG.error("trouble")


def said(control: LogControl) -> list[str]:
    return [line.rsplit(" ", 1)[1] for line in lines(control)]


def test_debug_lines_come_only_with_a_verbose_level(control: LogControl) -> None:
    say_everything()
    assert said(control) == ["news", "doubt", "trouble"]
    control.update(verbose_level=1)
    say_everything()
    assert said(control)[3:] == ["detail", "news", "doubt", "trouble"]
    control.update(verbose_level=0)
    LOG.debug("detail")
    assert len(lines(control)) == 7


@pytest.mark.parametrize(("level", "missing"), [("info", "news"), ("warning", "doubt"), ("error", "trouble")])
def test_each_level_is_switched_by_itself(control: LogControl, level: str, missing: str) -> None:
    control.update(**{level: False})
    say_everything()
    assert said(control) == [word for word in ("news", "doubt", "trouble") if word != missing]


def test_the_default_format_is_tritons(control: LogControl) -> None:
    LOG.warning("%d models", 3)
    assert re.fullmatch(r"W\d{4} \d\d:\d\d:\d\d\.\d{6} models\.loader: 3 models", lines(control)[0])


def test_iso8601_is_in_utc(control: LogControl) -> None:
    control.update(format="ISO8601")
    record = LOG.makeRecord(LOG.name, logging.INFO, "", 0, "news", (), None)
    record.created = 1_700_000_000.25
    LOG.handle(record)
    assert lines(control) == ["2023-11-14T22:13:20.250000Z I models.loader: news"]


def test_json_lines_are_objects_with_the_exception_inside(control: LogControl) -> None:
    control.update(format="json")
    LOG.info('a "quoted"\nline')
    try:
        int("cause")
    except ValueError:
        LOG.exception("it failed")
    first, second = map(json.loads, lines(control))
    assert first["message"] == 'a "quoted"\nline'
    assert (first["level"], first["logger"]) == ("INFO", "erg_server.models.loader")
    assert "ValueError: invalid literal" in second["exception"]


def test_an_exception_is_written_below_its_line(control: LogControl) -> None:
    try:
        int("cause")
    except ValueError:
        LOG.exception("it failed")
    assert lines(control)[0].endswith("it failed")
    assert lines(control)[-1].startswith("ValueError: invalid literal")


def test_text_from_a_client_cannot_start_a_line_of_its_own(control: LogControl) -> None:
    LOG.warning("model '%s' is unknown", "x\nE1124 01:02:03.000000 forged: line\r\x1b[2Jgone")
    assert lines(control)[1] == r"    E1124 01:02:03.000000 forged: line\x0d\x1b[2Jgone' is unknown"


def test_a_new_file_takes_over_and_the_old_one_gets_nothing_more(control: LogControl, tmp_path: Path) -> None:
    LOG.info("first")
    old = Path(control.settings.file)
    control.update(file=str(tmp_path / "second.log"))
    LOG.info("second")
    assert said(control) == ["second"]
    assert len(old.read_text(encoding="utf-8").splitlines()) == 1


def test_without_a_file_lines_go_to_standard_error(control: LogControl, capsys: pytest.CaptureFixture[str]) -> None:
    control.update(file="")
    LOG.info("news")
    assert capsys.readouterr().err.endswith("news\n")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"format": "xml"}, {"file": "/no/such/folder/erg.log"}], ids=str)
def test_a_setting_that_means_nothing_is_refused_and_changes_nothing(
    control: LogControl, changes: dict[str, str]
) -> None:
    before = control.settings
    with pytest.raises(InvalidArgumentError, match=next(iter(changes.values()))):
        control.update(verbose_level=1, **changes)
    assert control.settings == before
    say_everything()
    assert said(control) == ["news", "doubt", "trouble"]


def test_updates_leave_one_handler_and_no_file_open(control: LogControl) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        control.update(verbose_level=1)
        with pytest.raises(InvalidArgumentError):
            control.update(format="xml")
    handlers = logging.getLogger("erg_server").handlers
    assert sum(isinstance(handler, logging.FileHandler) for handler in handlers) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_other_libraries_are_left_alone(control: LogControl) -> None:
    logging.getLogger("somebody").warning("theirs")
    assert not lines(control)
