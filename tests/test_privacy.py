"""What Erg's libraries tell others of its user's models: nothing."""

import os
import subprocess
import sys

import pytest

_TELL = "import {}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"


@pytest.mark.parametrize("package", ["erg_server", "erg_converters"])
@pytest.mark.parametrize(("stated", "found"), [(None, "1"), ("0", "0")])
def test_onnxruntime_tells_nobody_of_models_unless_its_user_says_so(package, stated, found):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    if stated is not None:
        environment["ORT_DISABLE_TELEMETRY"] = stated
    command = [sys.executable, "-c", _TELL.format(package)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == found
