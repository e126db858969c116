"""What NVML says of the GPUs: the devices there are, MIG instances among them, and the memory that is in use."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from erg_server.devices.device import Device

log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_nvml() -> Iterator[Any | None]:
    """NVML's module while it is initialised; None without its Python package or a driver."""
    try:
        import pynvml  # noqa: PLC0415 (comes with the extra 'gpu')
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no GPU: %s", error)
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def find_gpus() -> tuple[Device, ...]:
    """NVIDIA GPUs that NVML reports, and in place of one in MIG mode its instances; () without NVML or a GPU."""
    with open_nvml() as nvml:
        if nvml is None:
            return ()
        try:
            return tuple(device for index in range(nvml.nvmlDeviceGetCount()) for device in _devices(nvml, index))
        except nvml.NVMLError as error:
            log.warning("NVML is there and does not answer: %s; its GPUs are not used", error)
            return ()


def _devices(nvml: Any, index: int) -> Iterator[Device]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    if not _in_mig_mode(nvml, handle):
        yield _device(nvml, handle, index, "")
        return
    # A GPU in MIG mode runs nothing itself: CUDA sees its instances alone.
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_FOUND:  # Numbers without an instance are left open.
                continue
            raise
        yield _device(nvml, instance, index, f"mig{number}")


def _in_mig_mode(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return False
        raise
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _device(nvml: Any, handle: Any, index: int, partition: str) -> Device:
    uuid = nvml.nvmlDeviceGetUUID(handle)
    return Device(
        kind="gpu",
        id=index,
        gpu_uuid=uuid.decode() if isinstance(uuid, bytes) else str(uuid),
        partition=partition,
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    )


def product_names(devices: Sequence[Device]) -> dict[str, str]:
    """What NVML calls the product of each GPU or MIG instance, by the device's name; without those it does not tell."""
    gpus = [device for device in devices if device.kind == "gpu"]
    if not gpus:
        return {}
    names: dict[str, str] = {}
    with open_nvml() as nvml:
        if nvml is None:
            return {}
        for device in gpus:
            try:
                name = nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByUUID(device.gpu_uuid))
            except nvml.NVMLError as error:
                log.warning("NVML does not tell the product of %s: %s", device.name, error)
                continue
            names[device.name] = name.decode() if isinstance(name, bytes) else str(name)
    return names


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of a device that is in use: by this process, and by all. None is what nobody tells."""

    process_bytes: int | None = None
    device_bytes: int | None = None

    def grown_since(self, before: MemoryUse) -> int:
        """What this process took since `before`.

        Where NVML does not know the process, as in a container with process ids of its own, it is what the device's
        use grew by, which is too much while others load there. Where it did not answer once, it is nothing.
        """
        if self.process_bytes is not None:
            return self.process_bytes - (before.process_bytes or 0)
        if self.device_bytes is None or before.device_bytes is None:
            return 0
        return self.device_bytes - before.device_bytes


def gpu_memory(device: Device, pid: int) -> MemoryUse:
    """Memory in use now on a GPU or MIG instance; nothing where NVML does not answer."""
    with open_nvml() as nvml:
        if nvml is None:
            return MemoryUse()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(device.gpu_uuid)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            own = next((each.usedGpuMemory for each in processes if each.pid == pid), None)
            return MemoryUse(own, int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
        except nvml.NVMLError as error:
            log.warning("NVML does not tell the memory of %s: %s", device.name, error)
            return MemoryUse()
