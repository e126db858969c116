"""The options that say what to send, how and where: those of `erg load run`, and of every command that makes runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from erg_loadtest.answers import CheckKind
from erg_loadtest.image_data import NORMALIZATIONS
from erg_loadtest.mlperf import MIN_DURATION_S, MIN_QUERIES, MlperfScenario

_Command = TypeVar("_Command", bound=Callable[..., Any])


_OPTIONS = (
    click.option(
        "-u", "--url", default="127.0.0.1:8001", show_default=True, help="The server's gRPC address, HOST:PORT."
    ),
    click.option("-x", "--model-version", default="", help="Version to call; the server chooses when left out."),
    click.option(
        "--concurrency",
        type=int,
        help="Closed loop: callers, each sending again when it is answered.  [default: 8]",
    ),
    click.option("--request-rate", type=float, help="Open loop: requests a second, sent when due, answered or not."),
    click.option(
        "--request-distribution",
        type=click.Choice(["poisson", "constant", "bursty"]),
        default="poisson",
        show_default=True,
        help="How an open loop spaces its requests: as unrelated users do, evenly, or in bursts.",
    ),
    click.option(
        "--burst-factor", type=float, default=5.0, show_default=True, help="Bursty: a burst's rate, in averages."
    ),
    click.option(
        "--burst-share", type=float, default=0.1, show_default=True, help="Bursty: the part of time in bursts."
    ),
    click.option(
        "--burst-period", type=float, default=2.0, show_default=True, help="Bursty: seconds from burst to burst."
    ),
    click.option(
        "--trace",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Replay arrivals: a CSV with time_s in seconds (and model), or perf_analyzer's request intervals.",
    ),
    click.option("--replay-speed", type=float, default=1.0, show_default=True, help="How much faster than recorded."),
    click.option(
        "--mlperf",
        type=click.Choice([scenario.value for scenario in MlperfScenario]),
        help="Let MLPerf's LoadGen issue the queries and judge the run; server and offline need --request-rate.",
    ),
    click.option(
        "--latency-bound-ms",
        type=float,
        help="MLPerf server: the p99's bound.  [default: MLPerf's of the model, or 10]",
    ),
    click.option(
        "--min-duration",
        type=float,
        default=MIN_DURATION_S,
        show_default=True,
        help="MLPerf: seconds; its rules say 600.",
    ),
    click.option("--min-queries", type=int, default=MIN_QUERIES, show_default=True, help="MLPerf: LoadGen's least."),
    click.option("--request-count", type=int, help="End after so many requests."),
    click.option("--duration", type=float, help="End after so many seconds.  [default: 10, unless --request-count]"),
    click.option("--warmup-request-count", type=int, default=50, show_default=True, help="Sent first, not counted."),
    click.option("-b", "--batch-size", type=int, default=1, show_default=True, help="Rows in each request."),
    click.option("--shape", "shapes", multiple=True, help="NAME:SIZES without the batch axis: ids:128, or ids:5..128."),
    click.option(
        "--mix",
        "mixes",
        multiple=True,
        help="WEIGHT=NAME:SIZES[;NAME:SIZES...], a part of the requests in other shapes: 0.7=ids:16;mask:16.",
    ),
    click.option("--range", "ranges", multiple=True, help="NAME:LOW:HIGH, bounds of an input's random values."),
    click.option("--omit", "omitted", multiple=True, help="An optional input not to send."),
    click.option("--distinct", type=int, default=64, show_default=True, help="Different random requests to prepare."),
    click.option("--seed", type=int, default=0, show_default=True, help="For the values, the sizes and the arrivals."),
    click.option(
        "--input-data",
        type=click.Path(exists=True, path_type=Path),
        help="Real requests: an .npz, perf_analyzer's .json, a .jsonl of texts, or a folder of .jpg and .png.",
    ),
    click.option(
        "--tokenizer",
        type=click.Path(exists=True, path_type=Path),
        help="Texts: a tokenizer.json or its folder; without it the model gets strings.",
    ),
    click.option("--text-field", default="text", show_default=True, help="Texts: the field of each line's object."),
    click.option("--max-length", type=int, help="Texts: tokens kept of each.  [default: the tokenizer's, or 512]"),
    click.option("--image-size", help="Images: HEIGHTxWIDTH, where the model leaves it open."),
    click.option(
        "--image-layout",
        type=click.Choice(["nchw", "nhwc"]),
        help="Images: where channels are.  [default: by the shape]",
    ),
    click.option(
        "--image-normalization",
        help=f"Images: {', '.join(NORMALIZATIONS)}, or MEAN/STD of pixels 0 to 255.  [default: unit; integers: raw]",
    ),
    click.option(
        "--batch-axis",
        is_flag=True,
        help="The inputs' first axis is the batch's, which servers without ModelConfig hide.",
    ),
    click.option(
        "--check",
        type=click.Choice([kind.value for kind in CheckKind]),
        help="Compare every answer: with outputs in the data, or with the request's first (hash: bit by bit).",
    ),
    click.option(
        "--atol", type=float, default=1e-4, show_default=True, help="Check: |answer - expected| may be this, ..."
    ),
    click.option("--rtol", type=float, default=1e-3, show_default=True, help="Check: ... and this times |expected|."),
    click.option("--connections", type=int, default=2, show_default=True, help="Connections of each client process."),
    click.option(
        "--processes",
        default="1",
        show_default=True,
        help="Client processes, or auto: as many as the warm-up shows to be needed.",
    ),
    click.option(
        "--client-timeout", type=float, default=60.0, show_default=True, help="Each request's deadline, seconds."
    ),
    click.option("--metrics-url", help="Erg's metrics (http://HOST:8002/metrics), for its CPU time."),
    click.option("--server-pid", type=int, help="Process id of any server on this machine, for its CPU time."),
    click.option("--price-per-cpu-hour", type=float, help="For the cost of 1,000 inferences."),
    click.option("--currency", default="USD", show_default=True, help="The price's currency."),
)


def plan_options(command: _Command) -> _Command:
    """Give a command all of these options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
