from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest
from erg_server import files
from erg_server.scheduling import latency_cache
from erg_server.scheduling.latency_cache import MAX_ENTRIES, LatencyCache
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.latency_model import LatencyModel

CURVE = CurveSnapshot(means_ns={1: 100.0, 8: 400.5}, spread=1.25)
KEY = (("ids", (3,)), 2)


def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "latency.json"
    cache = LatencyCache(path)
    cache.put("digest", "cpu", {None: CURVE, KEY: CURVE})
    cache.save()
    assert LatencyCache(path).get("digest", "cpu") == {None: CURVE, KEY: CURVE}
    assert [file.name for file in path.parent.iterdir()] == ["latency.json"]


def test_another_digest_or_device_knows_nothing(tmp_path: Path) -> None:
    cache = LatencyCache(tmp_path / "latency.json")
    cache.put("digest", "cpu", {None: CURVE})
    assert not cache.get("digest", "gpu")
    assert not cache.get("other", "cpu")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format_version": 2, "entries": {}}', '{"format_version": 1, "entries": 3}']
)
def test_a_damaged_file_is_told_and_ignored(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "latency.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        cache = LatencyCache(path)
    assert str(path) in caplog.text
    assert not cache.get("digest", "cpu")
    cache.put("digest", "cpu", {None: CURVE})
    cache.save()
    assert LatencyCache(path).get("digest", "cpu") == {None: CURVE}


@pytest.mark.parametrize("means", [{"0": 1}, {"1": -1}, {"x": 1}, {"1": None}, []])
def test_a_damaged_entry_is_told_and_ignored(tmp_path: Path, means: object, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "latency.json"
    entry = [{"key": None, "means_ns": means, "spread": 1.0}]
    path.write_text(json.dumps({"format_version": 1, "entries": {"digest cpu": entry}}))
    assert not LatencyCache(path).get("digest", "cpu")
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = LatencyCache(tmp_path / "file" / "latency.json")
    cache.put("digest", "cpu", {None: CURVE})
    cache.save()
    assert "cannot be written" in caplog.text


def test_the_oldest_entries_make_room(tmp_path: Path) -> None:
    cache = LatencyCache(tmp_path / "latency.json")
    for number in range(MAX_ENTRIES + 1):
        cache.put(str(number), "cpu", {None: CURVE})
    assert not cache.get("0", "cpu")
    assert cache.get("1", "cpu")


def test_a_model_restored_from_the_cache_predicts_as_before(tmp_path: Path) -> None:
    model = LatencyModel()
    for rows in (1, 4, 8):
        model.observe(KEY, rows, 1000 + rows)
    cache = LatencyCache(tmp_path / "latency.json")
    cache.put("digest", "cpu", model.snapshot())
    cache.save()
    again = LatencyModel()
    again.restore(LatencyCache(tmp_path / "latency.json").get("digest", "cpu"))
    assert [again.predict_high_ns(KEY, rows) for rows in range(1, 20)] == [
        model.predict_high_ns(KEY, rows) for rows in range(1, 20)
    ]


def test_a_slow_writer_does_not_replace_what_a_later_one_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LatencyCache(tmp_path / "cache.json")
    writing, go_on = threading.Event(), threading.Event()

    def slow(path: Path, text: str) -> None:
        if not writing.is_set():
            writing.set()
            assert go_on.wait(10)
        files.replace_text(path, text)

    monkeypatch.setattr(latency_cache, "replace_text", slow)
    first = threading.Thread(target=cache.save)
    first.start()
    assert writing.wait(10)
    cache.put("digest", "cpu/1", {None: CurveSnapshot(means_ns={1: 5.0})})
    second = threading.Thread(target=cache.save)
    second.start()
    second.join(0.2)  # Without a lock it ends here, and the first one writes last.
    go_on.set()
    first.join(10)
    second.join(10)
    assert LatencyCache(tmp_path / "cache.json").get("digest", "cpu/1")
