"""Which power sources a server has: those that were asked for, or the best that this machine offers."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from erg_server.devices.device import Device
from erg_server.devices.inventory import CGROUP_QUOTA, usable_cores
from erg_server.devices.nvml import open_nvml
from erg_server.energy.gpu_gauges import GpuGauges
from erg_server.energy.modelled_power import ModelledCpuPower, ModelledGpuPower
from erg_server.energy.nvml_power import NvmlPower
from erg_server.energy.power_source import PowerSource
from erg_server.energy.rapl_power import POWERCAP, RaplPower, find_rapl
from erg_server.energy.sampler import gpu_shares
from erg_server.energy.stated_watts import StatedWatts, watts_of
from erg_server.errors import InvalidArgumentError

log = logging.getLogger(__name__)

POWER_SOURCES: Final = ("auto", "nvml", "rapl", "modelled", "none")


class PowerSources:
    """The sources of a server, one a domain at most, and what they hold open.

    `auto` takes of each domain its counter, else what is modelled by stated watts, else none.

    Raises:
        InvalidArgumentError: a source was asked for by name that is not there; the message says what it needs.
    """

    def __init__(
        self,
        kind: str,
        devices: Sequence[Device],
        stated: dict[str, StatedWatts],
        *,
        rapl: Path = POWERCAP,
        cores: int | None = None,
    ) -> None:
        self.sources: list[PowerSource] = []
        self.gpus = GpuGauges(None, {})
        self._open = contextlib.ExitStack()
        self._kind = kind
        self._stated = stated
        self._devices = devices
        self._cores = cores or server_cores()
        try:
            self._choose(rapl)
        except BaseException:
            self._open.close()
            raise
        told = ", ".join(f"{source.domain} {source.source}" for source in self.sources) or "none"
        log.info("sources of power: %s", told)

    def close(self) -> None:
        """Release them."""
        self._open.close()

    def _choose(self, rapl: Path) -> None:
        gpus = {device.host: device for device in self._devices if device.kind == "gpu"}
        self._check_stated(gpus)
        nvml = self._open.enter_context(open_nvml()) if gpus else None
        self.gpus = GpuGauges(nvml, {device.id: host for host, device in gpus.items()})
        if self._kind == "nvml" and (nvml is None or not gpus):
            raise InvalidArgumentError(
                "--power-source nvml: this server uses no GPU; it needs a driver, the extra 'gpu' (nvidia-ml-py) and a "
                "GPU among --devices"
            )
        for host, device in gpus.items():
            self._add(self._gpu_source(nvml, host, device))
        self._add(self._cpu_source(rapl))

    def _check_stated(self, gpus: dict[str, Device]) -> None:
        for domain in self._stated:
            if domain != "cpu" and not (gpus if domain == "gpu" else domain in gpus):
                have = ", ".join(("cpu", *gpus))
                raise InvalidArgumentError(f"--power-watts {domain}: this server uses no such device; it has {have}")
        if self._kind == "modelled" and not any(watts.busy is not None for watts in self._stated.values()):
            raise InvalidArgumentError(
                "--power-source modelled needs the watts of a domain: --power-watts cpu=IDLE:BUSY (or gpu=IDLE:BUSY)"
            )

    def _gpu_source(self, nvml: Any, host: str, device: Device) -> PowerSource | None:
        watts = watts_of(host, self._stated)
        if nvml is not None and self._kind in {"auto", "nvml"}:
            return NvmlPower(nvml, device.id, idle_watts=None if watts is None else watts.idle)
        if watts is not None and watts.busy is not None and self._kind in {"auto", "modelled"}:
            shares = gpu_shares([each for each in self._devices if each.host == host])
            return ModelledGpuPower(host, watts, shares=shares)
        return None

    def _cpu_source(self, rapl: Path) -> PowerSource | None:
        watts = watts_of("cpu", self._stated)
        if self._kind in {"auto", "rapl"}:
            zones, reason = find_rapl(rapl)
            if zones:
                return RaplPower(zones, idle_watts=None if watts is None else watts.idle)
            if self._kind == "rapl":
                raise InvalidArgumentError(f"--power-source rapl: {reason}")
            # A server on a GPU has its main counter; one without any is told how to get one.
            log.info("the CPU's energy is not measured: %s", reason)
        if watts is not None and watts.busy is not None and self._kind in {"auto", "modelled"}:
            threads = {device.name: device.threads for device in self._devices if device.kind == "cpu"}
            return ModelledCpuPower(watts, cores=self._cores, threads=threads)
        return None

    def _add(self, source: PowerSource | None) -> None:
        if source is not None:
            self._open.callback(source.close)
            self.sources.append(source)


def server_cores() -> int:
    """Cores that the server may use: its CPU affinity, less where a container's quota is."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, usable_cores(CGROUP_QUOTA) or cores)
