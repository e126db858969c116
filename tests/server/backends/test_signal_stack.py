from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc, signal
from erg_server.backends.openvino_library import new_core
from erg_server.backends.signal_stack import signal_stack
caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
before = signal_stack()
core = new_core()
core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
print(signal_stack() == before)
del core
gc.collect()
signal.raise_signal(signal.SIGTERM)
print(len(caught))
"""


def test_a_signal_is_handled_after_openvino_has_come_and_gone() -> None:
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["True", "1"]), done.stderr
