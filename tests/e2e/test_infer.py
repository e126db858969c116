"""`erg infer` against real servers: what it prints, and how it ends where something is wrong."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import trustme
from click.testing import CliRunner, Result
from erg_server.client.cli import infer

from tests.e2e.server_process import ServerProcess, mlp_weights, write_identity, write_mlp

pytestmark = pytest.mark.e2e


def run(url: str, model: str, *options: str) -> Result:
    return CliRunner().invoke(infer, ["--url", url, "--model", model, *options])


def test_made_inputs_are_answered_and_shown(server: ServerProcess) -> None:
    result = run(server.grpc_address, "mlp")
    assert result.exit_code == 0, result.output
    head, given, came, last = result.output.splitlines()
    assert head == f"mlp version 1 at {server.grpc_address}"
    x = np.random.default_rng(0).random((1, 16), dtype=np.float32)
    y = np.maximum(x @ mlp_weights(), 0)[0]
    assert re.split(r"  +", given) == [
        "input",
        "x",
        "FP32",
        "[1, 16]",
        " ".join(f"{value:.6g}" for value in x[0, :5]) + " …",
    ]
    shown = [float(value) for value in re.split(r"  +", came)[4].split()[:5]]
    assert shown == pytest.approx(y[:5].tolist(), rel=1e-4, abs=1e-5)
    assert re.fullmatch(r"1 answer, as the metadata says; \d+\.\d\d ms", last)


@pytest.mark.parametrize(
    "model", ["bare", *(f"identity_{kind}" for kind in ["fp32", "string", "int64", "fp16", "bf16", "bool"])]
)
def test_every_datatype_of_the_repository_is_asked_for(server: ServerProcess, model: str) -> None:
    result = run(server.grpc_address, model, "--version", "1", "--count", "3")
    assert result.exit_code == 0, result.output
    assert "3 answers, as the metadata says; ms: least" in result.output


def test_open_axes_have_the_size_that_is_stated(server: ServerProcess) -> None:
    result = run(server.grpc_address, "identity_fp32", "--shape", "INPUT0=4,7")
    assert result.exit_code == 0, result.output
    assert re.search(r"output +OUTPUT0 +FP32 +\[4, 7\] ", result.output)


def test_inputs_of_a_file_are_sent_as_they_are(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    text = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 2], "data": [["one", "模"]]}
    path.write_text(json.dumps({"inputs": [text]}))
    result = run(server.grpc_address, "identity_string", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert re.search(r"output +OUTPUT0 +BYTES +\[1, 2\] +'one' '模'", result.output)


@pytest.mark.parametrize(
    ("model", "data", "told"),
    [
        ("identity_fp32", {"datatype": "FP32", "data": [1, float("nan")]}, "1 of 2 values are NaN or infinite"),
        (
            "identity_fp32",
            {"datatype": "INT64", "data": [1, 2]},
            "INVALID_ARGUMENT: model 'identity_fp32': input 'INPUT0'",
        ),
    ],
)
def test_a_wrong_answer_and_a_refusal_end_with_1(
    server: ServerProcess, tmp_path: Path, model: str, data: dict[str, object], told: str
) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 2]} | data]}))
    result = run(server.grpc_address, model, "--json", str(path))
    assert result.exit_code == 1
    assert told in result.output
    assert "answer, as" not in result.output


def test_a_model_that_is_not_there_and_a_server_that_is_not_end_with_1(server: ServerProcess) -> None:
    result = run(server.grpc_address, "gone")
    assert result.exit_code == 1
    assert f"ModelMetadata at {server.grpc_address}: NOT_FOUND: no model is called 'gone'" in result.output
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = run(f"127.0.0.1:{taken.getsockname()[1]}", "mlp")
    assert result.exit_code == 1
    assert "UNAVAILABLE" in result.output
    assert "Connection refused" in result.output


def test_an_answer_that_does_not_come_in_time_ends_with_1(server: ServerProcess) -> None:
    result = run(server.grpc_address, "patient", "--timeout-secs", "0.3")
    assert result.exit_code == 1
    assert "ModelInfer" in result.output
    assert "DEADLINE_EXCEEDED" in result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--json", "/no/such"], "--json /no/such: No such file"),
        (["--json", "/no/such", "--shape", "x=1"], "--shape is for made inputs"),
        (["--shape", "x"], "NAME=SIZE,SIZE"),
        (["--cert", "c.pem"], "--cert and --key go together"),
        (["--cert", "c.pem", "--key", "k.pem"], "need --ca-cert"),
        (["--ca-cert", "/no/such"], "--ca-cert /no/such: No such file"),
        (["--ca-cert", __file__], f"--ca-cert {__file__}: "),
        (["--count", "0"], "--count"),
        (["--timeout-secs", "0"], "--timeout-secs"),
    ],
)
def test_a_wrong_command_ends_with_2_and_sends_nothing(options: list[str], told: str) -> None:
    result = run("127.0.0.1:1", "m", *options)
    assert result.exit_code == 2
    assert told in result.output


def test_a_url_with_a_scheme_is_told_how_to_ask_for_tls() -> None:
    result = run("https://erg:8001", "m")
    assert result.exit_code == 2
    assert "--ca-cert asks for TLS" in result.output


def test_the_help_shows_how_it_is_used() -> None:
    output = CliRunner().invoke(infer, ["--help"]).output
    assert "erg infer --url 127.0.0.1:8001 --model mlp" in output
    assert '{"inputs": [{"name": "x"' in output


def test_tls_and_mutual_tls(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("root", "cert", "key", "stranger")}
    authority.cert_pem.write_to_path(paths["root"])
    stranger.cert_pem.write_to_path(paths["stranger"])
    leaf.private_key_pem.write_to_path(paths["key"])
    leaf.cert_chain_pems[0].write_to_path(paths["cert"])
    write_identity(tmp_path / "repository", "m", datatype="TYPE_FP32", dims="2")
    flags = [
        "--model-repository", str(tmp_path / "repository"), "--cpu-workers", "1", "--grpc-use-ssl-mutual",
        "--grpc-root-cert", paths["root"], "--grpc-server-cert", paths["cert"], "--grpc-server-key", paths["key"],
    ]  # fmt: skip
    mine = ["--cert", paths["cert"], "--key", paths["key"]]
    with ServerProcess(*flags) as server:
        result = run(server.grpc_address, "m", "--ca-cert", paths["root"], *mine)
        assert result.exit_code == 0, result.output
        for options in ([], ["--ca-cert", paths["root"]], ["--ca-cert", paths["stranger"], *mine]):
            result = run(server.grpc_address, "m", *options, "--timeout-secs", "10")
            assert result.exit_code == 1, result.output
            assert "UNAVAILABLE" in result.output or "DEADLINE_EXCEEDED" in result.output
        result = run(
            server.grpc_address, "m", "--ca-cert", paths["root"], "--cert", paths["root"], "--key", paths["key"]
        )
        assert result.exit_code == 2
        assert f"--cert {paths['root']} with --key {paths['key']}: " in result.output


def test_one_models_folder_is_served_as_kserve_mounts_it(tmp_path: Path) -> None:
    write_mlp(tmp_path / "models" / "1")
    flags = ["--model-repository", str(tmp_path / "models"), "--model-name", "mlp", "--cpu-workers", "1"]
    with ServerProcess(*flags) as server:
        assert server.http("/readyz?model=mlp")[0] == 200
        result = run(server.grpc_address, "mlp")
        assert result.exit_code == 0, result.output
