"""One incarnation of a worker process, as the front sees it: spawned, spoken to in frames, and dead at end of file."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import ErgError, InternalError, ResourceExhaustedError, UnavailableError
from erg_server.workers import frames
from erg_server.workers.frames import MAX_FRAME_BYTES, Kind, SlotTensor
from erg_server.workers.slab import Slab, aligned

log = logging.getLogger(__name__)

SLOTS: Final = 2
"""One batch that runs and one that is staged, so that the device never waits for the front."""


class BatchInput(Protocol):
    """One input of a batch, which writes itself into the slab."""

    index: int
    datatype: DataType
    shape: tuple[int, ...]
    nbytes: int

    def write(self, view: memoryview) -> None:
        """Fill `view`, which has `nbytes` bytes."""
        ...


class BatchOutput:
    """One output of a batch. `data` lies in the slab and is valid only while `on_done` runs."""

    __slots__ = ("data", "datatype", "index", "shape")

    def __init__(self, index: int, datatype: DataType, shape: tuple[int, ...], data: memoryview) -> None:
        self.index = index
        self.datatype = datatype
        self.shape = shape
        self.data = data


class BatchResult:
    """What a batch gave, and how long the worker took: views made, model run, outputs written (nanoseconds).

    `ended_ns` is when, on the machine's monotonic clock.
    """

    __slots__ = ("ended_ns", "infer_ns", "input_ns", "output_ns", "outputs")

    def __init__(self, outputs: list[BatchOutput], input_ns: int, infer_ns: int, output_ns: int, ended_ns: int) -> None:
        self.outputs = outputs
        self.input_ns = input_ns
        self.infer_ns = infer_ns
        self.output_ns = output_ns
        self.ended_ns = ended_ns


OnDone = Callable[["BatchResult | ErgError"], None]


class WorkerProcess:
    """A child process and its two slots. Owns the socket, the slab and the process; `on_exit` is called once."""

    def __init__(
        self,
        device: Device,
        *,
        slot_bytes: int,
        on_slot_free: Callable[[], None],
        on_exit: Callable[[], None],
    ) -> None:
        self.device = device
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_slot_free = on_slot_free
        self._on_exit = on_exit
        self._held: dict[int, tuple[OnDone, int]] = {}
        self._free = list(range(SLOTS))
        self._loads: dict[int, asyncio.Future[int]] = {}
        self._unloads: dict[int, asyncio.Future[None]] = {}
        self._closed = False
        try:
            self._start(slot_bytes)
        except OSError as error:
            raise UnavailableError(f"worker {device.name} does not start: {error}") from error
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)

    def _start(self, slot_bytes: int) -> None:
        """Spawn the child and pass it the slab; leaves nothing behind where the system has no room for that."""
        with contextlib.ExitStack() as undo:
            self._slab = Slab.create(slots=SLOTS, slot_bytes=slot_bytes)
            undo.callback(self._slab.close)
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._socket.close)
            self._socket.setblocking(False)
            hello = frames.pack_hello(self._slab.slot_bytes, SLOTS, asdict(self.device))
            descriptor = array.array("i", [self._slab.fd])
            with theirs:
                # Sent before the child lives, so that nothing can fail after it does.
                self._socket.sendmsg([hello], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "erg_server.workers.main", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env=os.environ | self.device.environment,
                    # A terminal's Ctrl-C goes to its whole process group; the front decides when a worker ends.
                    start_new_session=True,
                )
            undo.pop_all()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def free_slots(self) -> int:
        """Batches it would take now."""
        return 0 if self._closed else len(self._free)

    async def load(self, handle: int, header: dict[str, Any], config: bytes) -> int:
        """Load a model and return the bytes the process grew by; raises ErgError if it does not load."""
        loaded: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._loads[handle] = loaded
        try:
            self._send(frames.pack_load(handle, header, config))
            return await loaded
        finally:
            self._loads.pop(handle, None)

    async def unload(self, handle: int) -> None:
        """Forget a model, and return when its memory is free. Batches sent before still run; none may be sent after."""
        unloaded = self._unloads.get(handle)
        if unloaded is None:
            unloaded = self._unloads[handle] = asyncio.get_running_loop().create_future()
            try:
                self._send(frames.pack_unload(handle))
            except UnavailableError:
                del self._unloads[handle]  # With the process goes all that it held.
                return
        await asyncio.shield(unloaded)

    def submit(self, handle: int, inputs: Sequence[BatchInput], on_done: OnDone) -> None:
        """Write a batch into a free slot and start it. `on_done` is called once, later.

        Raises:
            ResourceExhaustedError: the inputs do not fit a slot.
            UnavailableError: the process is gone, or holds as many batches as it may.
        """
        if not self.free_slots:
            raise UnavailableError(f"worker {self.device.name} takes no batch now")
        slot = self._free[-1]
        view = self._slab.slots[slot]
        tensors: list[SlotTensor] = []
        offset = 0
        for item in inputs:
            end = offset + item.nbytes
            if end > self._slab.slot_bytes:
                raise ResourceExhaustedError(
                    f"a batch's inputs need more than {self._slab.slot_bytes} bytes (--worker-slot-bytes)"
                )
            item.write(view[offset:end])
            tensors.append(SlotTensor(item.index, item.datatype, item.shape, offset, item.nbytes))
            offset = aligned(end)
        self._send(frames.pack_run(slot, handle, tensors))
        self._free.pop()
        self._held[slot] = on_done, offset

    async def stop(self, grace_s: float) -> None:
        """End the process: close its socket, and kill it where that does not end it within `grace_s`."""
        self._close(UnavailableError("the worker was stopped"))
        await asyncio.to_thread(self._reap, grace_s)

    def _reap(self, grace_s: float) -> None:
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, frame: bytes) -> None:
        if self._closed:
            raise UnavailableError(f"worker {self.device.name} is gone")
        try:
            self._socket.send(frame)
        except OSError as error:
            raise UnavailableError(f"worker {self.device.name} does not take frames: {error}") from error

    def _on_readable(self) -> None:
        """Take the frame that is there. For another the event loop comes again; asking for it in vain costs more."""
        try:
            frame = self._socket.recv(MAX_FRAME_BYTES)
        except BlockingIOError:
            return
        except OSError:
            frame = b""
        if not frame:
            self._on_end_of_file()
            return
        try:
            self._handle(frame)
        except InternalError as error:
            log.error("worker %s is ended: %s", self.device.name, error.message)  # noqa: TRY400 (its cause is told)
            self._on_end_of_file()

    def _handle(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == Kind.DONE:
            slot, (input_ns, infer_ns, output_ns, ended_ns), tensors = frames.unpack_done(frame)
            if slot not in self._held:
                raise InternalError(f"it answered slot {slot}, which holds no batch")
            view = self._slab.slots[slot]
            outputs = [
                BatchOutput(item.index, item.datatype, item.shape, view[item.offset : item.offset + item.nbytes])
                for item in tensors
            ]
            used = max((item.offset + item.nbytes for item in tensors), default=0)
            if used > len(view):
                raise InternalError(f"it answered {used} bytes in a slot of {len(view)}")
            self._finish(slot, BatchResult(outputs, input_ns, infer_ns, output_ns, ended_ns), used)
        elif kind == Kind.FAILED:
            slot, error = frames.unpack_failed(frame)
            if slot not in self._held:
                raise InternalError(f"it failed slot {slot}, which holds no batch: {error.message}")
            self._finish(slot, error, 0)
        elif kind == Kind.READY:
            if not self.ready.done():
                self.ready.set_result(None)
        elif not self._handle_loading(kind, frame):
            log.error("worker %s sent a frame of unknown kind %d", self.device.name, kind)

    def _handle_loading(self, kind: int, frame: bytes) -> bool:
        """Take the answer to a load or an unload; False if the frame is none."""
        if kind == Kind.LOADED:
            handle, memory_bytes = frames.unpack_loaded(frame)
            if (loaded := self._loads.get(handle)) is not None and not loaded.done():
                loaded.set_result(memory_bytes)
        elif kind == Kind.REFUSED:
            handle, error = frames.unpack_refused(frame)
            if (loaded := self._loads.get(handle)) is not None and not loaded.done():
                loaded.set_exception(error)
        elif kind == Kind.UNLOADED:
            if (unloaded := self._unloads.pop(frames.unpack_unloaded(frame), None)) is not None:
                unloaded.set_result(None)
        else:
            return False
        return True

    def _finish(self, slot: int, result: BatchResult | ErgError, used_bytes: int) -> None:
        on_done, input_bytes = self._held.pop(slot)
        try:
            on_done(result)
        except Exception:
            log.exception("taking a batch's answer from worker %s failed", self.device.name)
        if isinstance(result, BatchResult):
            for output in result.outputs:
                with contextlib.suppress(BufferError):
                    output.data.release()
        self._slab.trim(slot, max(used_bytes, input_bytes))
        self._free.append(slot)
        self._on_slot_free()

    def _on_end_of_file(self) -> None:
        self._close(UnavailableError(f"worker {self.device.name} died while it held the request; retry"))
        self._process.kill()
        self._on_exit()

    def _close(self, error: ErgError) -> None:
        if self._closed:
            return
        self._closed = True
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        held, self._held = self._held, {}
        for on_done, _ in held.values():
            try:
                on_done(error)
            except Exception:
                log.exception("telling of the end of worker %s failed", self.device.name)
        for loaded in self._loads.values():
            if not loaded.done():
                loaded.set_exception(UnavailableError(f"worker {self.device.name} died while it loaded the model"))
        for unloaded in self._unloads.values():
            unloaded.set_result(None)
        self._unloads.clear()
        if not self.ready.done():
            self.ready.set_exception(InternalError(f"worker {self.device.name} ended before it was ready"))
        self._slab.close()

    def exit_status(self) -> int | None:
        """The child's exit status once it ended (negative: the signal), without waiting."""
        return self._process.poll()

    def wait(self) -> None:
        """Wait for a process that was killed; blocks, so call it from a thread."""
        self._process.wait()
