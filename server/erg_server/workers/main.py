"""A worker process: bound to its cores and to its parent's life, it serves frames until the front closes the socket."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys

from erg_server.devices.device import Device
from erg_server.workers import frames
from erg_server.workers.frames import MAX_FRAME_BYTES, Kind
from erg_server.workers.loop import WorkerLoop
from erg_server.workers.slab import Slab

PR_SET_PDEATHSIG = 1


def prepare_process(device: Device) -> None:
    """Bind this process to its cores and to its parent's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A front that is killed closes the socket, but a batch may run for long: the kernel ends us at once.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if device.cores:
        os.sched_setaffinity(0, device.cores)


def run_worker(fd: int) -> None:
    """Take the slab from the front's first frame and serve until it closes the socket."""
    with socket.socket(fileno=fd) as connection:
        hello, descriptors, _, _ = socket.recv_fds(connection, MAX_FRAME_BYTES, 1)
        if not hello or hello[0] != Kind.HELLO or len(descriptors) != 1:
            return  # the front died first
        stated = frames.unpack_hello(hello)
        device = Device(**{**stated["device"], "cores": tuple(stated["device"]["cores"])})
        prepare_process(device)
        slab = Slab(descriptors[0], slots=stated["slots"], slot_bytes=stated["slot_bytes"])
        with contextlib.suppress(ConnectionError):
            WorkerLoop(connection, slab, device).serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    run_worker(int(sys.argv[1]))
