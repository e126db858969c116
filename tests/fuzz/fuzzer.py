"""Runs a target under atheris: what is instrumented, where its corpora lie, and which bounds hold."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

FOLDER = Path(__file__).parent
CACHE = FOLDER.parents[1] / ".cache" / "fuzz"
INSTRUMENTED = ["erg_server", "hpack"]
MOST_CPU_S = 10
"""For one input, of which most take a millisecond. libFuzzer's own limit counts wall time, also where the machine is
busy or stands still, so it is set high and left for what no exception of Python's ends."""
PLAIN = ["erg_server.clock", "erg_server.errors", "erg_server.pb.inference_pb2", "erg_server.request"]
"""atheris takes whole packages; what is imported before is left alone, so that only transports and hpack count."""

USAGE = """\
usage: python -m tests.fuzz.{name} [-flag=value ...] [corpus folder or input file ...]

{doc}
New inputs go to .cache/fuzz/{name}; the seeds in tests/fuzz/seeds/{name} and tests/fuzz/regressions/{name} are read.
It runs until it is stopped or finds something, which it leaves in .cache/fuzz as {name}-crash-*, -timeout-* or -oom-*.

  -max_total_time=60     stop after so many seconds
  -runs=10000            stop after so many inputs
  -timeout=300           seconds of wall time after which an input that no exception ends is a finding
  -rss_limit_mb=1024     so is more memory than this; and {cpu_s} seconds of CPU time for one input
  -help=1                all flags of libFuzzer

Run a finding again:      python -m tests.fuzz.{name} .cache/fuzz/{name}-crash-...
Make it smaller:          the same with -minimize_crash=1 -max_total_time=60
Keep it for good:         copy it to tests/fuzz/regressions/{name}/ under a name that says what it is about; every
                          pytest run replays it (no atheris needed), and fails until the cause is gone.
"""


@contextlib.contextmanager
def instrumented(module: str) -> Iterator[None]:
    """Around a target's imports: of a program they are instrumented, for a test they are left alone."""
    if module != "__main__":
        yield
        return
    main: Any = sys.modules["__main__"]
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE.format(name=Path(main.__file__).stem, doc=main.__doc__, cpu_s=MOST_CPU_S))  # noqa: T201 (a program's help)
        raise SystemExit(0)
    try:
        import atheris
    except ImportError:
        raise SystemExit("atheris is missing: pip install -c constraints.txt -e '.[dev]' (Linux on x86-64)") from None
    for name in PLAIN:
        importlib.import_module(name)
    with atheris.instrument_imports(include=INSTRUMENTED):
        yield


def inputs(name: str) -> list[Path]:
    """The committed inputs of a target: its seeds, and what was found and mended."""
    return sorted(path for kind in ("seeds", "regressions") for path in (FOLDER / kind / name).glob("*"))


class TooSlow(Exception):  # noqa: N818 (a finding, told as one)
    """One input has taken too much CPU time."""


def _bounded(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def stop(*_: object) -> None:
        raise TooSlow(f"one input takes more than {MOST_CPU_S} s of CPU time")

    def bounded(raw: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
        try:
            check(raw)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, stop)
    return bounded


def run(name: str, check: Callable[[bytes], None], *, max_bytes: int) -> NoReturn:
    """Fuzz `check`, whose every exception is a finding, with this program's arguments as libFuzzer's."""
    import atheris

    stated = sys.argv[1:]
    # The last of equal flags holds, so these are defaults.
    defaults = [f"-max_len={max_bytes}", "-timeout=300", "-rss_limit_mb=1024", f"-artifact_prefix={CACHE}/{name}-"]
    found = CACHE / name
    found.mkdir(parents=True, exist_ok=True)
    corpora: list[str] = []
    if not any(not argument.startswith("-") for argument in stated):
        corpora = [str(found), *(str(FOLDER / kind / name) for kind in ("seeds", "regressions"))]
    atheris.Setup(
        [sys.argv[0], *defaults, *stated, *[path for path in corpora if Path(path).is_dir()]], _bounded(check)
    )
    atheris.Fuzz()
    raise SystemExit(0)
