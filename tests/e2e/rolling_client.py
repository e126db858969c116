"""A grpcio client as people deploy it: round robin over the addresses of a name, no retries, one request after another
at a constant rate whatever becomes of those before. It sends until its standard input ends, then tells what came.

Run as a process of its own, because gRPC reads GRPC_DNS_RESOLVER once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc.aio
import numpy as np
from erg_server.pb import inference_pb2 as pb

OPTIONS = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # gRPC's default is 30 s between two looks at the name, more than a whole update takes here.
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    # Not even the retries that gRPC makes unasked where a server did not look at a call.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


class Client:
    """Sends and counts."""

    def __init__(self, channel: grpc.aio.Channel, model: str) -> None:
        self._model = model
        self._infer: Any = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        self.sent = 0
        self.right = 0
        self.wrong: list[str] = []
        self.failed: list[str] = []

    async def send(self) -> None:
        """One request, whose answer must be what it was."""
        self.sent += 1
        number = self.sent
        content = np.float32(number).tobytes()
        request = pb.ModelInferRequest(model_name=self._model, id=str(number), raw_input_contents=[content])
        request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 1])
        try:
            answer = await self._infer(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            self.failed.append(f"{number}: {error.code().name} {error.details()}")
            return
        if (answer.id, list(answer.raw_output_contents)) == (str(number), [content]):
            self.right += 1
        else:
            self.wrong.append(f"{number}: {answer}")


async def main(target: str, model: str, rate_per_s: float) -> None:
    """See the module."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        async with asyncio.timeout(30):
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
        client = Client(channel, model)
        await client.send()
        sys.stdout.write("sending\n")
        sys.stdout.flush()
        told_to_stop = loop.run_in_executor(None, sys.stdin.read)
        tasks = set()
        at = loop.time()
        while not told_to_stop.done():
            task = asyncio.ensure_future(client.send())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            at += 1 / rate_per_s
            await asyncio.sleep(at - loop.time())
        await asyncio.gather(*tasks)
    outcome = {"sent": client.sent, "right": client.right, "wrong": client.wrong, "failed": client.failed}
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
