"""A server's Prometheus page: fetched whole, read for the families that a load test asks of it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from erg_loadtest.errors import PlanError, ServerError

_MAX_BYTES = 8 << 20
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the page."""

    name: str
    labels: Mapping[str, str]
    value: float


class MetricsPage:
    """The page at one address; raises PlanError for an address that is none."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise PlanError(f"metrics URL '{url}': write http://HOST:PORT/metrics")
        self._host = parts.hostname
        self._port = parts.port or 8002
        self._path = parts.path if parts.path.strip("/") else "/metrics"
        self.url = f"http://{self._host}:{self._port}{self._path}"

    def fetch(self) -> str:
        """The page's text; blocking, so call it from a thread. Raises ServerError."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            body = response.read(_MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{self.url}: {error}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise ServerError(f"{self.url}: status {response.status}")
        if len(body) > _MAX_BYTES:
            raise ServerError(f"{self.url}: more than {_MAX_BYTES} bytes")
        return body.decode(errors="replace")


def lines_of(page: str, prefixes: tuple[str, ...]) -> str:
    """The samples whose names begin with one of `prefixes`; cheap, so that a page can be kept while a load runs."""
    return "".join(line + "\n" for line in page.splitlines() if line.startswith(prefixes))


def samples(page: str) -> Iterator[Sample]:
    """Every sample of a page; raises ServerError for what is no such page."""
    try:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                yield Sample(sample.name, sample.labels, float(sample.value))
    except (ValueError, KeyError, IndexError) as error:
        raise ServerError(f"the metrics page is not in Prometheus' format: {error}") from error
