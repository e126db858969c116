"""What /metrics shows of certificates: when those end that new connections get."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from erg_server.transports.certificates import ReloadingCertificates


def certificate_families(certificates: ReloadingCertificates) -> Iterable[Metric]:
    """When each file ends. Looks whether they were renewed, since no connection may have come since."""
    certificates.reload()
    family = GaugeMetricFamily(
        "erg_tls_certificate_expiry_timestamp_seconds",
        "When the certificates that new connections get end, in Unix time: of a chain the first, of roots the last.",
        labels=("file",),
    )
    for path, at_s in certificates.expiries.items():
        family.add_metric((str(path),), at_s)
    yield family
