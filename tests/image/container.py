"""A container of the image as a node would run it: its user, a read-only root, no capabilities, the node's loopback."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.image import storage
from tests.tools import tool

START_TIMEOUT_S = 60.0
_RUN = (
    "run", "--rm", "--network=host", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
)  # fmt: skip


def podman(*arguments: str) -> list[str]:
    """A command line of podman, with the runtime and the control groups that work inside a container as well."""
    return [str(tool("podman")), "--runtime=runc", "--cgroup-manager=cgroupfs", *arguments]


def output(image: str, program: str, *arguments: str) -> str:
    """Standard output of another program of the image, run like the server."""
    return storage.run(podman(*_RUN, f"--entrypoint={program}", image, *arguments))


class Container:
    """Runs `erg serve` until it is ready; `stop` asks the engine, which sends the image's stop signal."""

    def __init__(self, image: str, models: Path, name: str, *flags: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            podman(
                *_RUN, f"--name={name}", "--mount=type=tmpfs,destination=/tmp", f"--volume={models}:/models:ro",
                "--mount=type=tmpfs,destination=/var/cache/erg,tmpfs-mode=1777", image, "serve",
                "--model-repository=/models", "--grpc-address=127.0.0.1", "--grpc-port=0",
                "--metrics-address=127.0.0.1", "--metrics-port=0", *flags,
            ),
            env=storage.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.grpc_address = self.wait_for(r"gRPC on ([\d.]+:\d+)")
            self.metrics_address = self.wait_for(r"metrics on http://([\d.]+:\d+)")
            self.wait_for(r"serving \d+ models")
        except BaseException:
            self.remove()
            raise

    def wait_for(self, pattern: str) -> str:
        """The first group of `pattern` in the log, as soon as a line matches it."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with self._changed:
            while True:
                for line in self.log:
                    if match := re.search(pattern, line):
                        return match[1] if match.groups() else match[0]
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no line matches {pattern!r} in:\n" + "".join(self.log[-50:]))
                self._changed.wait(min(left, 1.0))

    def stop(self) -> int:
        """The exit status after the image's stop signal; -9 where the engine had to kill it."""
        storage.run(podman("stop", "--time=30", self.name))
        return self.process.wait(30)

    def remove(self) -> None:
        """End it whatever it does."""
        if self.process.poll() is None:
            subprocess.run(podman("rm", "--force", "--time=0", self.name), env=storage.environment(), check=False)
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stdout.write("".join(self.log[-80:]))
        self.remove()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
