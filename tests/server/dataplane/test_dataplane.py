"""What the RPCs mean, over a real registry and scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from erg_server.clock import MonotonicClock
from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.errors import ErgError, InternalError, InvalidArgumentError, NotFoundError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import RequestedOutput
from erg_server.telemetry.logs import ROOT, LogControl, LogSettings
from erg_server.telemetry.trace import Tracer

from tests.server.models.harness import CONFIG, Harness, request

LABELLED = CONFIG.replace('name: "y"', 'name: "y" label_filename: "labels.txt"')


@dataclass(kw_only=True)
class Server:
    harness: Harness
    plane: DataPlane
    tracer: Tracer
    leaving: asyncio.Event


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    harness = Harness(root=tmp_path / "repo")
    tracer, logs, leaving = Tracer(), LogControl(LogSettings()), asyncio.Event()
    plane = DataPlane(
        registry=harness.registry,
        meter=harness.meter,
        tracer=tracer,
        logs=logs,
        memory=SharedMemory(allowed=False),
        clock=MonotonicClock(),
        leaving=leaving.is_set,
        strict_readiness=True,
        trace_folder=tmp_path,
    )
    yield Server(harness=harness, plane=plane, tracer=tracer, leaving=leaving)
    logs.close()
    logging.getLogger(ROOT).propagate = True


def logging_request(**settings: bool | int | str) -> pb.LogSettingsRequest:
    message = pb.LogSettingsRequest()
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for name, value in settings.items():
        setattr(message.settings[name], kinds[type(value)], value)
    return message


def tracing(model: str = "", **settings: str) -> pb.TraceSettingRequest:
    message = pb.TraceSettingRequest(model_name=model)
    for name, value in settings.items():
        message.settings[name].value.append(value)
    return message


async def test_an_answer_tells_its_cost_only_where_it_was_asked_for(server: Server) -> None:
    server.harness.write()
    await server.harness.load()
    for stated in ({"erg_cost": True}, {"erg_cost": False}, {"other": 1}, {}):
        asking = request(3)
        asking.parameters = stated
        answer = await server.plane.infer(asking)
        again = request(3)
        again.parameters = stated
        later: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        server.plane.submit(again, later.set_result)
        for each in (answer, await later):
            if stated == {"erg_cost": True}:
                assert each.parameters["erg_batch_rows"] == 3
                assert each.parameters["erg_model_variant"] == "identity"
                assert each.parameters["erg_joules_source"] == "none"
                assert "erg_queue_us" in each.parameters
            else:
                assert not each.parameters


async def test_a_cost_that_is_asked_for_by_no_yes_or_no_is_refused(server: Server) -> None:
    server.harness.write()
    await server.harness.load()
    asking = request()
    asking.parameters = {"erg_cost": "yes"}
    with pytest.raises(InvalidArgumentError, match="erg_cost"):
        await server.plane.infer(asking)
    with pytest.raises(InvalidArgumentError, match="erg_cost"):
        server.plane.submit(asking, lambda _: None)


async def test_a_request_is_answered_and_counted(server: Server) -> None:
    server.harness.write()
    await server.harness.load()
    for rows in (1, 3):
        answer = await server.plane.infer(request(rows, value=2.5))
        assert (answer.model_name, answer.model_version) == ("m", "1")
        np.testing.assert_array_equal(answer.outputs[0].numpy(), np.full((rows, 2), 2.5, np.float32))
    (told,) = server.plane.model_statistics("m", "").model_stats
    assert (told.name, told.version, told.inference_count, told.execution_count) == ("m", "1", 4, 2)
    assert told.inference_stats.success.count == 2
    assert told.inference_stats.queue.count == 2
    assert (told.inference_stats.compute_infer.count, told.inference_stats.compute_infer.ns) == (2, 4)
    assert [(item.batch_size, item.compute_infer.count) for item in told.batch_stats] == [(1, 1), (3, 1)]
    assert told.inference_stats.success.ns > 0
    assert told.last_inference > 0
    assert [(item.type, item.byte_size) for item in told.memory_usage] == [("CPU", 64)]


async def test_a_request_that_fails_in_its_batch_is_a_failure_and_no_success(server: Server) -> None:
    server.harness.write()
    await server.harness.load()
    server.harness.worker.batch_failure = lambda _: InternalError("no")
    with pytest.raises(InternalError):
        await server.plane.infer(request())
    (told,) = server.plane.model_statistics("m", "1").model_stats
    assert (told.inference_stats.success.count, told.inference_stats.fail.count) == (0, 1)


async def test_statistics_are_of_a_version_a_model_or_everything(server: Server) -> None:
    server.harness.write("a", 2, 10, config=CONFIG + "version_policy { all { } }")
    server.harness.write("b")
    await server.harness.load("a")
    await server.harness.load("b")

    def told(name: str = "", version: str = "") -> list[tuple[str, str]]:
        return [(item.name, item.version) for item in server.plane.model_statistics(name, version).model_stats]

    assert told() == [("a", "2"), ("a", "10"), ("b", "1")]
    assert told("a") == [("a", "2"), ("a", "10")]
    assert told("a", "2") == [("a", "2")]
    for name, version in (("c", ""), ("a", "3")):
        with pytest.raises(NotFoundError):
            told(name, version)


async def test_metadata_and_configuration_are_the_completed_models(server: Server) -> None:
    server.harness.write()
    await server.harness.load()
    metadata = server.plane.model_metadata("m", "")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("m", ["1"], "identity")
    (entry,) = metadata.inputs
    assert (entry.name, entry.datatype, list(entry.shape)) == ("x", "FP32", [-1, 2])
    config = server.plane.model_config("m", "1").config
    assert (config.name, config.max_batch_size, config.input[0].name) == ("m", 4, "x")
    told = server.plane.server_metadata()
    assert told.name == "erg"
    assert "statistics" in told.extensions


async def test_readiness_is_lost_when_the_server_is_told_to_stop(server: Server) -> None:
    server.harness.write()
    await server.harness.registry.start(["m"])
    assert (server.plane.ready(), server.plane.model_ready("m", "")) == (True, True)
    assert not server.plane.model_ready("m", "2")
    server.leaving.set()
    assert (server.plane.live(), server.plane.ready(), server.plane.model_ready("m", "")) == (True, False, False)


async def test_classes_take_the_place_of_the_output_that_asked_for_them(server: Server) -> None:
    (server.harness.write(config=LABELLED) / "labels.txt").write_text("cat\ndog\n")
    await server.harness.load()
    asked = request(1, RequestedOutput("y", classification=2))
    asked.inputs[0] = asked.inputs[0].from_numpy("x", np.array([[0.5, 1.5]], np.float32))
    answer = await server.plane.infer(asked)
    assert answer.outputs[0].shape == (1, 2)
    assert answer.outputs[0].numpy().tolist() == [[b"1.500000:1:dog", b"0.500000:0:cat"]]
    plain = await server.plane.infer(request(1, RequestedOutput("y")))
    assert plain.outputs[0].shape == (1, 2)


async def test_a_load_takes_a_configuration_and_files_and_refuses_anything_else(server: Server) -> None:
    config = {"backend": "identity", "input": [], "output": []} | {
        side: [{"name": side[0], "data_type": "TYPE_FP32", "dims": [1]}] for side in ("input", "output")
    }
    load = pb.RepositoryModelLoadRequest(model_name="new")
    load.parameters["config"].string_param = json.dumps(config)
    load.parameters["file:2/weights"].bytes_param = b"w"
    await server.plane.load_model(load)
    assert server.plane.model_ready("new", "2")
    for name, kind, value in (
        ("config", "bytes_param", b"{}"),
        ("file:1/w", "string_param", ""),
        ("x", "bool_param", 1),
    ):
        wrong = pb.RepositoryModelLoadRequest(model_name="new")
        setattr(wrong.parameters[name], kind, value)
        with pytest.raises(InvalidArgumentError, match=f"load parameter '{name}' of type {kind}"):
            await server.plane.load_model(wrong)
    await server.plane.unload_model("new")
    assert [(item.name, item.state) for item in server.plane.repository_index("", ready=False).models] == [
        ("new", "UNAVAILABLE")
    ]


@pytest.mark.parametrize("key", ["file:../x", "file:/etc/x", "file:1/../../x", "file:x", "file:1"])
async def test_a_file_of_a_load_request_cannot_leave_its_folder(server: Server, key: str) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="m")
    load.parameters["config"].string_param = '{"backend": "identity"}'
    load.parameters[key].bytes_param = b"w"
    with pytest.raises(InvalidArgumentError):
        await server.plane.load_model(load)


async def test_log_settings_are_told_changed_and_obeyed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    plane, log = server.plane, logging.getLogger(f"{ROOT}.test")
    told = plane.log_settings(logging_request()).settings
    assert (told["log_info"].bool_param, told["log_verbose_level"].uint32_param) == (True, 0)
    assert told["log_format"].string_param == "default"
    log.debug("not yet")
    plane.log_settings(logging_request(log_verbose_level=1, log_format="json"))
    log.debug("now")
    told = plane.log_settings(logging_request(log_info=False)).settings
    assert told["log_verbose_level"].uint32_param == 1
    log.info("no more")
    lines = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["now"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_colour": True}, "unknown log setting 'log_colour'; there are log_file"),
        ({"log_info": "yes"}, "'log_info' takes a bool"),
        ({"log_verbose_level": True}, "'log_verbose_level' takes a int"),
        ({"log_format": "xml"}, "'xml' is not one of default, ISO8601, json"),
        ({"log_file": "/tmp/elsewhere"}, "log_file is the server's to choose"),
    ],
)
async def test_a_wrong_log_setting_changes_nothing(server: Server, settings: dict[str, Any], message: str) -> None:
    before = server.plane.log_settings(logging_request())
    with pytest.raises(InvalidArgumentError, match=message):
        server.plane.log_settings(logging_request(**({"log_warning": False} | settings)))
    assert server.plane.log_settings(logging_request()) == before


async def test_a_models_trace_settings_follow_the_global_ones_until_it_has_its_own(
    server: Server, tmp_path: Path
) -> None:
    server.harness.write()
    await server.harness.load()
    plane = server.plane
    file = tmp_path / "trace.json"
    plane.trace_settings(tracing(trace_rate="7"))
    assert plane.trace_settings(tracing("m")).settings["trace_rate"].value == ["7"]
    own = {"trace_level": "TIMESTAMPS", "trace_rate": "2", "trace_count": "2", "trace_file": str(file)}
    told = plane.trace_settings(tracing("m", **own)).settings
    assert told["trace_rate"].value == ["2"]
    assert plane.trace_settings(tracing()).settings["trace_level"].value == ["OFF"]
    for number in range(8):
        asked = request()
        asked.id = str(number)
        await plane.infer(asked)
    server.tracer.flush()
    written = json.loads(file.read_text())
    assert [item["request_id"] for item in written if "request_id" in item] == ["1", "3"]
    stamps = [stamp["ns"] for stamp in written[1]["timestamps"]]
    assert stamps == sorted(stamps)
    clear = tracing("m")
    clear.settings["trace_rate"].SetInParent()
    assert plane.trace_settings(clear).settings["trace_rate"].value == ["7"]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("", {"trace_rate": "0"}),
        ("", {"trace_level": "ALL"}),
        ("", {"trace_x": "1"}),
        ("gone", {"trace_rate": "1"}),
        ("", {"trace_file": "../elsewhere.json"}),
        ("", {"trace_file": "/etc/elsewhere.json"}),
    ],
)
async def test_a_wrong_trace_setting_changes_nothing(server: Server, model: str, settings: dict[str, str]) -> None:
    before = server.plane.trace_settings(tracing())
    with pytest.raises(ErgError):
        server.plane.trace_settings(tracing(model, **settings))
    assert server.plane.trace_settings(tracing()) == before
