"""A Deployment's rolling update, with processes on loopback addresses for pods: no request is lost on its way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.e2e.loopback_dns import LoopbackDns
from tests.e2e.server_process import ServerProcess, write_identity
from tests.e2e.slow_network import SlowNetwork
from tests.e2e.test_lifecycle import fp32, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
REPLICAS = 3
NAME = "pods.erg.test"
ONE_WAY_S = 0.02
"""Long enough for requests to be under way whenever a server says that it goes."""


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Pods of one port, and the name under which those that are ready are found."""

    dns: LoopbackDns
    network: SlowNetwork
    port: int
    flags: tuple[str, ...]
    started: int = 0
    pods: dict[str, ServerProcess] = field(default_factory=dict)

    def start(self, stack: ExitStack) -> str:
        """A pod enters the endpoints when its readiness probe succeeds."""
        self.started += 1
        address = f"127.0.0.{1 + self.started}"
        pod = ServerProcess(*self.flags, wait_ready=False)
        stack.callback(pod.kill)
        self.network.link(address, self.port, pod.grpc_address)
        until(lambda: pod.http("/readyz")[0] == 200)
        self.pods[address] = pod
        self.dns.addresses += (address,)
        return address

    def stop(self, address: str) -> ServerProcess:
        """A pod leaves the endpoints as it is told to stop, of which the last callers hear when it says so already."""
        pod = self.pods.pop(address)
        pod.process.send_signal(signal.SIGTERM)
        until(lambda: pod.http("/readyz")[0] == 503)
        with triton.InferenceServerClient(f"{address}:{self.port}") as newcomer:
            answer = newcomer.infer("m", [fp32(np.full((1, 1), 7, np.float32), "INPUT0")])
            assert answer.as_numpy("OUTPUT0").item() == 7
        self.dns.addresses = tuple(each for each in self.dns.addresses if each != address)
        return pod


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def load(target: str, rate_per_s: float) -> Iterator[subprocess.Popen[str]]:
    """A client that sends all the time."""
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.rolling_client", target, "m", str(rate_per_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"GRPC_DNS_RESOLVER": "ares"},
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "sending\n"
        yield client
    finally:
        client.kill()
        client.communicate()


def test_a_rolling_update_under_constant_load_loses_no_request(tmp_path: Path) -> None:
    delay = 'parameters { key: "execution_delay_ms" value { string_value: "20" } }'
    write_identity(tmp_path, "m", datatype="TYPE_FP32", dims="1", extra=delay)
    flags = ("--model-repository", str(tmp_path), "--cpu-workers", "1", "--drain-delay-secs", "3")
    with ExitStack() as stack:
        dns = stack.enter_context(LoopbackDns(NAME))
        network = stack.enter_context(SlowNetwork(delay_s=ONE_WAY_S))
        deployment = Deployment(dns=dns, network=network, port=free_port(), flags=flags)
        old = [deployment.start(stack) for _ in range(REPLICAS)]
        client = stack.enter_context(load(f"dns://{dns.authority}/{NAME}:{deployment.port}", 150))
        asked = dns.asked
        ended = []
        for address in old:
            deployment.start(stack)
            ended.append(deployment.stop(address))
        assert [pod.process.wait(30) for pod in ended] == [0] * REPLICAS
        # What old pods had is asked of new ones, each of which has its share by now.
        until(lambda: all(pod.metric("nv_inference_count", model="m") > 0 for pod in deployment.pods.values()))
        outcome = json.loads(client.communicate(timeout=60)[0])
        assert dns.asked > asked, "the client looked the pods up again"
        assert outcome["failed"] == []
        assert outcome["wrong"] == []
        assert outcome["right"] == outcome["sent"] > 100
