"""What 1,000 inferences of a converted model and of its plain fp32 cost, served side by side, and which one to run.

    python -m bench.variants --model-repository ../model_repo --output FOLDER

Real models on a real server: energy modelled from stated watts, money by the example prices, quality from the manifest.
`erg load sweep` does the rest; its page, plot and document are left in the folder.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from bench.minilm import write_plain
from bench.serving import Served, served
from erg_loadtest.cli import load

POWER = ("--power-source", "modelled", "--power-watts", "cpu=20:95")
PRICES = Path(__file__).parents[2] / "docs" / "prices.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, how it is loaded, and the p99 that the chosen variant must keep."""

    model: str
    rates: str
    p99_ms: float
    inputs: tuple[str, ...]


CASES = (
    Case(
        model="minilm",
        rates="20,60,120",
        p99_ms=100,
        inputs=(
            "--shape", "input_ids:32", "--range", "input_ids:1000:29000",
            "--shape", "attention_mask:32", "--range", "attention_mask:1:1",
        ),
    ),
    Case(model="efficientnet_lite0", rates="10,30,60", p99_ms=100, inputs=("--range", "image:-1:1")),
)  # fmt: skip


def variants(repository: Path, model: str, target: Path) -> dict[str, float]:
    """Put `model`_fp32 and `model`_int8 into `target`; their quality by name, against the plain model's own answers."""
    folder = repository / model
    versions = [int(entry.name) for entry in folder.glob("[0-9]*") if (entry / "manifest.json").exists()]
    if not versions:
        raise click.ClickException(
            f"{folder} has no converted version: erg convert run converters/recipes/{model}.toml"
        )
    newest = folder / str(max(versions))
    write_plain(folder, newest / "model.onnx", target / f"{model}_fp32")
    converted = target / f"{model}_int8"
    shutil.copytree(newest, converted / "1")
    shutil.copyfile(folder / "config.pbtxt", converted / "config.pbtxt")
    for name in (f"{model}_fp32", f"{model}_int8"):
        config = target / name / "config.pbtxt"
        lines = [line for line in config.read_text(encoding="utf-8").splitlines() if not line.startswith("name:")]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = json.loads((newest / "manifest.json").read_text(encoding="utf-8"))
    judged = {entry["variant"]: entry for entry in manifest["accuracy"]}
    entry = judged[manifest["selected"][0]["artifact"]]
    return {f"{model}_fp32": entry["baseline"], f"{model}_int8": entry["value"]}


@click.command(help=__doc__)
@click.option("--model-repository", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="For pages and plots.")
@click.option("--duration", default=20.0, show_default=True, help="Seconds of each run.")
@click.option("--only", default="", help="One model alone.")
def main(model_repository: Path, output: Path, duration: float, only: str) -> None:
    """Sweep over both variants of every model at three rates."""
    output.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if only in {"", case.model}:
            with tempfile.TemporaryDirectory(prefix="erg-variants-") as folder:
                qualities = variants(model_repository, case.model, Path(folder))
                flags = (*POWER, "--price-file", str(PRICES))
                with served(Path(folder), *flags) as server:
                    sweep(case, qualities, server, output, duration)


def sweep(case: Case, qualities: dict[str, float], server: Served, output: Path, duration: float) -> None:
    """Run `erg load sweep` as a user does; raises ClickException where a run could not be made."""
    plain, converted = qualities
    arguments: Sequence[str] = (
        "sweep", converted, "--models", plain, "--url", server.url, "--metrics-url", server.metrics_url,
        "--request-rate", case.rates, "--duration", str(duration), "--p99-ms", str(case.p99_ms),
        *(part for name, quality in qualities.items() for part in ("--performance", f"{name}={quality}")),
        *case.inputs,
        "--output", str(output / f"{case.model}.json"), "--report", str(output / f"{case.model}.html"),
        "--plot", str(output / f"{case.model}.png"), "--csv", str(output / f"{case.model}.csv"),
    )  # fmt: skip
    code = load.main(args=list(arguments), standalone_mode=False)
    if code:
        click.echo(f"{case.model}: erg load sweep ended with {code}", file=sys.stderr)


if __name__ == "__main__":
    main()
