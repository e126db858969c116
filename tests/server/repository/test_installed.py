import pytest
from erg_server.repository import installed
from erg_server.repository.installed import installed_backends, usable_backends


def test_a_backend_is_usable_with_its_library_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"identity", "onnxruntime", "openvino"} <= installed_backends()
    monkeypatch.setattr(installed, "LIBRARIES", {"onnxruntime": "onnx", "openvino": "no_such_library"})
    assert {"identity", "onnxruntime"} <= usable_backends()
    assert "openvino" not in usable_backends()
