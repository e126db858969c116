"""The server's CPU time, measured: from Erg's own /metrics, or from the process tree of any server."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

from erg_loadtest.errors import PlanError, ServerError

_METRIC = "erg_process_cpu_seconds_total"
_MAX_METRICS_BYTES = 8 << 20
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSeconds:
    """CPU time of the server's processes, user and system, since they started."""

    front: float
    by_worker: Mapping[str, float]

    def since(self, before: CpuSeconds) -> CpuSeconds | str:
        """The time spent after `before`, or why that cannot be told."""
        spent = {worker: seconds - before.by_worker.get(worker, 0.0) for worker, seconds in self.by_worker.items()}
        front = self.front - before.front
        if min(front, *spent.values(), 0.0) < 0 or not self.by_worker.keys() >= before.by_worker.keys():
            return "CPU time went back: a process of the server ended during the run"
        return CpuSeconds(front=front, by_worker=spent)


class CpuMeter(Protocol):
    """Reads the server's CPU time; blocking, so call it from a thread. Raises ServerError."""

    source: str

    def read(self) -> CpuSeconds:
        """CPU time so far."""
        ...


class MetricsCpuMeter:
    """Erg's own count, by process role."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise PlanError(f"metrics URL '{url}': write http://HOST:PORT/metrics")
        self._host = parts.hostname
        self._port = parts.port or 8002
        self._path = parts.path if parts.path.strip("/") else "/metrics"
        self.source = f"measured: {_METRIC} of http://{self._host}:{self._port}{self._path}"

    def read(self) -> CpuSeconds:
        """Scrape once and add up by process role."""
        front = 0.0
        by_worker: dict[str, float] = {}
        found = False
        for family in text_string_to_metric_families(self._scrape()):
            for sample in family.samples:
                if sample.name != _METRIC:
                    continue
                found = True
                if sample.labels.get("process") == "front":
                    front += sample.value
                else:
                    worker = sample.labels.get("worker", "")
                    by_worker[worker] = by_worker.get(worker, 0.0) + sample.value
        if not found:
            raise ServerError(f"http://{self._host}:{self._port}{self._path} has no {_METRIC}")
        return CpuSeconds(front=front, by_worker=by_worker)

    def _scrape(self) -> str:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            body = response.read(_MAX_METRICS_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"http://{self._host}:{self._port}{self._path}: {error}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise ServerError(f"http://{self._host}:{self._port}{self._path}: status {response.status}")
        if len(body) > _MAX_METRICS_BYTES:
            raise ServerError(f"http://{self._host}:{self._port}{self._path}: more than {_MAX_METRICS_BYTES} bytes")
        return body.decode(errors="replace")


class ProcessTreeCpuMeter:
    """The kernel's count for a process of this machine and all its descendants, whatever server it is."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.source = f"measured: /proc, process {pid} and its descendants"

    def read(self) -> CpuSeconds:
        """The process itself counts as front, its descendants as workers."""
        try:
            front = psutil.Process(self._pid)
            front_seconds = _own_seconds(front)
            by_worker = {}
            for child in front.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    by_worker[str(child.pid)] = _own_seconds(child)
        except psutil.Error as error:
            raise ServerError(f"process {self._pid}: {error}") from error
        return CpuSeconds(front=front_seconds, by_worker=by_worker)


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
