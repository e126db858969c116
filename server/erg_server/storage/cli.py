"""`erg fetch`: bring models from buckets, archives and folders onto this machine's disk, verified."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from erg_server.errors import ErgError
from erg_server.storage.fetch_bars import FetchBars, make_bars
from erg_server.storage.fetch_log import FetchLog, size_text
from erg_server.storage.fetch_meter import FetchMeter
from erg_server.storage.fetch_run import FetchOptions, FetchOutcome, fetch_models
from erg_server.storage.location import parse_location
from erg_server.storage.unit_fetch import FetchProgress

log = logging.getLogger(__name__)

TERMINATED = 143
"""As a shell tells of a process that SIGTERM ended."""

_HELP = """Bring models onto this machine's disk, as for a server that starts next to them.

\b
Examples:
  erg fetch --model-repository s3://bucket/models --to /models
  erg fetch --model-repository s3://bucket/models --model minilm --to /models
  erg fetch --model-repository https://host/models.tar.gz --to /models
  erg serve --model-repository /models

A repository is NAME/config.pbtxt and NAME/VERSION/FILE below the location. Of each model the versions that its
version_policy serves are fetched, held against the digests in their manifest.json, and brought into place by one
rename, so that no server ever sees half a version. Run again, it fetches what changed, goes on with what was
interrupted, and removes versions that are gone. An archive is a tar file of a repository
(tar -C model_repo -cf models.tar .).

Credentials come from the environment alone: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL, a web identity or the machine's role; AWS_SKIP_SIGNATURE=true for a public bucket.

\b
Exit status:
  0    all that was asked for is there
  1    something is not; what is said of it, and everything else is there
  2    the command itself was wrong
  143  ended by SIGTERM; the next run goes on from there
"""


@click.command(short_help="Bring models from a bucket, an archive or a folder to disk.", help=_HELP)
@click.option(
    "--model-repository",
    "locations",
    metavar="LOCATION",
    multiple=True,
    required=True,
    envvar="ERG_MODEL_REPOSITORY",
    show_envvar=True,
    help="s3://BUCKET/PREFIX (gs://, az://), https://HOST/models.tar or a folder. Repeat it for several.",
)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to fetch to; a server's --model-repository. Models in it that were not fetched are left alone.",
)
@click.option("--model", "models", metavar="NAME", multiple=True, help="Fetch this model only. Repeatable.")
@click.option(
    "--require-digests", is_flag=True, help="Take only versions whose manifest.json has their files' digests."
)
@click.option(
    "--max-archive-bytes",
    type=click.IntRange(min=1),
    default=64 << 30,
    show_default="64 GiB",
    help="Most bytes that an archive may unpack to.",
)
def fetch(
    locations: tuple[str, ...], to: Path, models: tuple[str, ...], require_digests: bool, max_archive_bytes: int
) -> None:
    """Fetch and say what is there."""
    try:
        options = FetchOptions(
            locations=tuple(parse_location(text) for text in locations),
            to=to,
            models=models,
            require_digests=require_digests,
            max_archive_bytes=max_archive_bytes,
        )
    except ErgError as error:
        raise click.UsageError(error.message) from error
    meter = FetchMeter(repository=", ".join(each.uri for each in options.locations))
    try:
        with _progress(meter) as progress:
            outcome = asyncio.run(_run(options, progress))
    except ErgError as error:
        raise click.ClickException(error.message) from error
    except asyncio.CancelledError:
        click.echo("ended by SIGTERM; the next run goes on from here", err=True)
        sys.exit(TERMINATED)
    _report(outcome, meter, to)
    sys.exit(1 if outcome.problems else 0)


async def _run(options: FetchOptions, progress: FetchProgress) -> FetchOutcome:
    task = asyncio.current_task()
    assert task is not None
    # The first process of a container has no default for it, and would be waited for until it is killed.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await fetch_models(options, progress, log.warning)


@contextlib.contextmanager
def _progress(meter: FetchMeter) -> Iterator[FetchProgress]:
    """Bars where somebody watches, lines where nobody does; both on standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    logger = logging.getLogger("erg_server.storage")
    handler = _ConsoleHandler(console)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if console.is_terminal else logging.INFO)
    counts = FetchLog(log, meter, time.monotonic)
    try:
        if console.is_terminal:
            with make_bars(console) as bars:
                yield FetchBars(counts, bars)
        else:
            yield counts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


class _ConsoleHandler(logging.Handler):
    """Lines above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; markup in a key is text."""
        self._console.print(self.format(record), markup=False)


def _report(outcome: FetchOutcome, meter: FetchMeter, to: Path) -> None:
    for name, versions in sorted(outcome.versions.items()):
        click.echo(f"{name}: versions {', '.join(map(str, versions)) or 'none'}")
    for problem in outcome.problems.values():
        click.echo(f"error: {problem.message}", err=True)
    count = len(outcome.versions)
    models = "1 model" if count == 1 else f"{count} models"
    fetched = f"{size_text(meter.fetched_bytes)} fetched" if meter.fetched_bytes else "nothing to fetch"
    click.echo(f"{models} in {to}, {fetched}")
