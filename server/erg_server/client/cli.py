"""`erg infer`: ask a running server for real answers and check them, as an installation's test does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from erg_server.client.answer import check_answer, read_answer
from erg_server.client.connection import Connection, TlsFiles
from erg_server.client.generated_inputs import generate, parse_shapes
from erg_server.client.json_inputs import read_inputs
from erg_server.client.report import summary, tensor_lines
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.tensor import Tensor

_HELP = """Send inferences to a running server and check its answers.

Inputs are made from the model's metadata: floating-point values in [0, 1), the same each time; integers 1; booleans
true; strings "erg". Open axes (-1) have size 1. An answer is right when its outputs have the names, datatypes and
shapes of the metadata and no value is NaN or infinite. Any server of the Open Inference Protocol may be asked.

\b
Examples:
  erg infer --url 127.0.0.1:8001 --model mlp
  erg infer --url erg:8001 --model minilm --shape input_ids=1,128 --shape attention_mask=1,128
  erg infer --url erg.example.com:443 --ca-cert ca.pem --model mlp --count 100
  erg infer --url 127.0.0.1:8001 --model mlp --json request.json

\b
request.json, as the protocol's REST form has it; data may be nested or flat:
  {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]}]}

Exits with 0 when every answer is right, 1 when a call fails or an answer is wrong, 2 when the command itself was wrong.
"""

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Send inferences to a server and check its answers.", help=_HELP)
@click.option("--url", required=True, help="The server's host:port, without a scheme.")
@click.option("--model", required=True, help="Name of the model.")
@click.option("--version", default="", help="Version of the model. [default: the newest]")
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Requests to send.")
@click.option("--json", "json_file", type=_FILE, help="File of the inputs, instead of made ones.")
@click.option("--shape", multiple=True, help="NAME=1,128: sizes of every axis of a made input. Repeatable.")
@click.option("--ca-cert", type=_FILE, help="PEM file of the roots that the server's certificate needs; asks for TLS.")
@click.option("--cert", type=_FILE, help="PEM file of your own certificate chain, for mutual TLS.")
@click.option("--key", type=_FILE, help="PEM file of its key, without a password.")
@click.option(
    "--timeout-secs",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=30.0,
    show_default=True,
    help="Deadline of each call.",
)
def infer(
    *,
    url: str,
    model: str,
    version: str,
    count: int,
    json_file: Path | None,
    shape: tuple[str, ...],
    ca_cert: Path | None,
    cert: Path | None,
    key: Path | None,
    timeout_secs: float,
) -> None:
    """See `_HELP`, which is what people read."""
    if "://" in url:
        raise click.UsageError(f"--url takes host:port, not '{url}'; --ca-cert asks for TLS")
    if json_file is not None and shape:
        raise click.UsageError("--shape is for made inputs; --json states shapes itself")
    try:
        shapes = parse_shapes(shape)
        inputs = None if json_file is None else read_inputs(json_file)
        connection = Connection(url, timeout_s=timeout_secs, tls=_tls(ca_cert, cert, key))
    except InvalidArgumentError as error:
        raise click.UsageError(error.message) from error
    try:
        with connection:
            question = pb.ModelMetadataRequest(name=model, version=version)
            metadata = connection.ask("ModelMetadata", question, pb.ModelMetadataResponse)
            if inputs is None:
                inputs = generate(metadata.inputs, shapes)
            request = _request(model, version, inputs)
            outputs, latencies_s, answered = _send(connection, request, metadata, count)
    except ErgError as error:
        raise click.ClickException(error.message) from error
    click.echo(f"{model} version {answered} at {url}")
    for line in tensor_lines([("input", each) for each in inputs] + [("output", each) for each in outputs]):
        click.echo(line)
    click.echo(summary(latencies_s))


def _tls(roots: Path | None, certificate: Path | None, key: Path | None) -> TlsFiles | None:
    if (certificate is None) != (key is None):
        raise InvalidArgumentError("--cert and --key go together")
    if roots is None:
        if certificate is not None:
            raise InvalidArgumentError("--cert and --key need --ca-cert, whose roots the server's certificate needs")
        return None
    return TlsFiles(roots=roots, certificate=certificate, key=key)


def _request(model: str, version: str, inputs: Sequence[Tensor]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    for tensor in inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        request.raw_input_contents.append(bytes(tensor.data))
    return request


def _send(
    connection: Connection, request: pb.ModelInferRequest, metadata: pb.ModelMetadataResponse, count: int
) -> tuple[list[Tensor], list[float], str]:
    """The last answer's outputs, each answer's latency in seconds, and the version that answered last."""
    outputs: list[Tensor] = []
    latencies_s = []
    answered = ""
    for _ in range(count):
        began_ns = time.perf_counter_ns()
        answer = connection.ask("ModelInfer", request, pb.ModelInferResponse)
        latencies_s.append((time.perf_counter_ns() - began_ns) * 1e-9)
        outputs = read_answer(answer)
        check_answer(outputs, metadata.outputs)
        answered = answer.model_version
    return outputs, latencies_s, answered
