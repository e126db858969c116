"""A real Prometheus on a free port, with the chart's rules, that scrapes one server every second."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.monitoring.rules import RULE_FILES
from tests.tools import tool

START_TIMEOUT_S = 60.0
TARGET = {"namespace": "test", "pod": "erg-0"}
"""Labels that a ServiceMonitor would put on what is scraped."""


def copy_rules(folder: Path) -> list[Path]:
    """The rule files with each `for` shortened, a minute to a second and an hour to a minute; all else is as it is.

    Windows stay as long as they are: of a window that began before the server did, Prometheus uses what there is.
    """
    copies = []
    for path in RULE_FILES:
        text = re.sub(r"^( +for: \d+)m$", r"\1s", path.read_text(), flags=re.MULTILINE)
        copies.append(folder / path.name)
        copies[-1].write_text(re.sub(r"^( +for: \d+)h$", r"\1m", text, flags=re.MULTILINE))
    return copies


class Prometheus:
    """Starts it, asks its API, and ends it with SIGTERM."""

    def __init__(self, folder: Path, target: str) -> None:
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in copy_rules(folder)],
            "scrape_configs": [{"job_name": "erg", "static_configs": [{"targets": [target], "labels": TARGET}]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self._log = folder / "prometheus.log"
        self._output = self._log.open("w")
        self.process = subprocess.Popen(
            [tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
             f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"],
            stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            self.address = self._listening()
            self.until(lambda: self.query("up") != [], "a first scrape")
        except BaseException:
            self.stop()
            raise

    def _listening(self) -> str:
        lines = re.compile(r'msg="Listening on" address=([\d.:]+)')
        self.until(lambda: lines.search(self._log.read_text()), "its port")
        found = lines.search(self._log.read_text())
        assert found is not None
        return found.group(1)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for a condition of another process, which no event here can tell of."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline_s, f"{what} did not come"
            threading.Event().wait(0.2)

    def get(self, path: str, **parameters: str) -> Any:
        """What the API answers under `data`; fails with its error."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an expression now; a number has no labels."""
        data = self.get("query", query=expr)
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else list(data["result"])

    def until_value(self, expr: str, what: str) -> None:
        """Wait until an expression has series; fails at once where it is none."""
        self.until(lambda: self.query(expr), f"a value of {what}")

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire, by name."""
        alerts = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    def stop(self) -> None:
        """End it, however it is."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
