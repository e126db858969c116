"""A real S3 server (SeaweedFS) on free ports, with one bucket and one user, for tests that read models from buckets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.tools import tool

BUCKET = "models"
ACCESS_KEY = "AKIATESTONLY"
SECRET_KEY = "a-secret-that-no-log-may-hold"
START_TIMEOUT_S = 60.0
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


class ObjectStore:
    """Started once a module: that takes four seconds. Writes through obstore."""

    def __init__(self) -> None:
        self.program = tool("weed")
        self.folder = Path(tempfile.mkdtemp(prefix="erg-weed-"))
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        numbers = free_ports(len(_PORTS) + 2)
        self.ports = dict(zip((*_PORTS, "s3.port", "s3.port.grpc"), numbers, strict=True))
        self.endpoint = f"http://127.0.0.1:{self.ports['s3.port']}"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
            self.make_bucket()
        except BaseException:
            self.close()
            raise

    def environment(self, **changes: str) -> dict[str, str]:
        """What a process needs to reach the bucket."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            **changes,
        }

    def start(self) -> None:
        ports = [f"-{name}={port}" for name, port in self.ports.items()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                 f"-dir={self.folder}", "-s3", f"-s3.config={self.folder / 's3.json'}", "-s3.port.iceberg=0",
                 "-s3.port.lance=0", "-volume.max=20", "-master.volumeSizeLimitMB=64", *ports],
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        self._until(lambda: self._answers(self.endpoint))

    def close(self) -> None:
        if self.process is not None:
            # It goes on for minutes after SIGTERM.
            self.process.kill()
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_bucket(self, bucket: str = BUCKET) -> None:
        """A folder of the filer's is a bucket, which takes no signature to make."""
        self._until(lambda: self._answers(self._folder_address(bucket), method="POST"))
        self._until(lambda: self._writes(bucket))

    def drop_bucket(self, bucket: str) -> None:
        """Remove a bucket with all that is in it."""
        address = self._folder_address(bucket).rstrip("/") + "?recursive=true"
        self._until(lambda: self._answers(address, method="DELETE"))

    def put(self, key: str, data: bytes, bucket: str = BUCKET) -> None:
        self._store(bucket).put(key, data)

    def delete(self, *keys: str) -> None:
        self._store().delete(list(keys))

    def keys(self, prefix: str) -> list[str]:
        return [each["path"] for each in self._store().list(prefix).collect()]

    def upload(self, folder: Path, prefix: str, bucket: str = BUCKET) -> None:
        """Every file below the folder, manifests last."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: (path.name == "manifest.json", str(path))):
            self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes(), bucket)

    def _store(self, bucket: str = BUCKET) -> Any:
        from obstore.store import S3Store

        return S3Store(
            bucket,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            endpoint=self.endpoint,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def _folder_address(self, bucket: str) -> str:
        return f"http://127.0.0.1:{self.ports['filer.port']}/buckets/{bucket}/"

    def _writes(self, bucket: str) -> bool:
        from obstore.exceptions import BaseError

        try:
            self.put("probe", b"x", bucket)
            self._store(bucket).delete("probe")
        except (BaseError, OSError):
            return False
        return True

    def _answers(self, address: str, method: str = "GET") -> bool:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return method == "GET"
        except OSError:
            return False

    def _until(self, condition: Any) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert self.process is not None
            in_time = self.process.poll() is None and time.monotonic() < deadline
            assert in_time, (self.folder / "log").read_text()[-2000:]
            threading.Event().wait(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    numbers = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return numbers
