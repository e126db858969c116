"""Settings from a file, from variables and from flags, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from erg_server import lifecycle
from erg_server.cli import main
from erg_server.errors import InvalidArgumentError
from erg_server.settings import (
    ENV_PREFIX,
    ServeSettings,
    is_repeatable,
    merge,
    read_settings_file,
    setting_fields,
    setting_type,
)

REPOSITORY = {"model_repository": ("r",)}
PAIR = {"grpc_server_cert": "c", "grpc_server_key": "k"}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """The settings that `erg serve` would have run with."""
    seen: list[ServeSettings] = []

    def run(settings: ServeSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(lifecycle, "run_server", run)
    return seen


def serve(*flags: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", *flags], env=env)
    return result.exit_code, result.output


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "erg.toml"
    path.write_text(text)
    return path


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path, served: list[ServeSettings]) -> None:
    file = write(tmp_path, 'model_repository = "from-file"\ngrpc-port = 1\nmetrics_port = 1\ncpu_workers = 1\n')
    env = {"ERG_GRPC_PORT": "2", "ERG_METRICS_PORT": "2", "ERG_MODEL_REPOSITORY": "from-env"}
    status, output = serve("--settings", str(file), "--grpc-port", "3", env=env)
    assert (status, output) == (0, "")
    (settings,) = served
    assert (settings.grpc_port, settings.metrics_port, settings.cpu_workers) == (3, 2, 1)
    assert settings.threads_per_worker == ServeSettings.__dataclass_fields__["threads_per_worker"].default
    assert settings.model_repository == ("from-env",)


def test_a_switch_can_be_turned_either_way_at_each_place(tmp_path: Path, served: list[ServeSettings]) -> None:
    file = write(tmp_path, 'model_repository = "r"\nreflection = false\nallow_client_shm = true\n')
    for flags, env in (([], {}), (["--reflection"], {}), ([], {"ERG_REFLECTION": "true"})):
        serve("--settings", str(file), *flags, env=env)
    serve("--settings", str(file), "--no-allow-client-shm", env={"ERG_ALLOW_CLIENT_SHM": "1"})
    assert [settings.reflection for settings in served] == [False, True, True, False]
    assert [settings.allow_client_shm for settings in served] == [True, True, True, False]


def test_the_settings_file_itself_may_be_named_by_a_variable(tmp_path: Path, served: list[ServeSettings]) -> None:
    file = write(tmp_path, 'model_repository = ["a", "b"]\n')
    assert serve(env={"ERG_SETTINGS": str(file)})[0] == 0
    assert served[0].model_repository == ("a", "b")


def test_prices_without_anything_to_price_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="--price-file needs --metering"):
        merge(REPOSITORY | {"price_file": "prices.toml", "metering": False})


@pytest.mark.parametrize("key", ["X-Tenant", "x tenant", "tenant-bin", "grpc-tenant", "-x", "a" * 65, "ä"])
def test_what_is_no_key_of_metadata_names_no_tenant(key: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--tenant-metadata-key"):
        merge(REPOSITORY | {"tenant_metadata_key": key})
    assert merge(REPOSITORY | {"tenant_metadata_key": "x-tenant"}).tenant_metadata_key == "x-tenant"


def test_every_setting_may_be_stated_in_a_file_and_in_a_variable(tmp_path: Path, served: list[ServeSettings]) -> None:
    stated: dict[str, Any] = {}
    for item in setting_fields():
        kind = setting_type(item.name)
        choices = item.metadata["choices"]
        others: dict[type, Any] = {bool: not item.default, int: 1 << 20, float: 7.5, str: "x"}
        stated[item.name] = choices[-1] if choices else others[kind]
    stated |= {"grpc_port": 1, "metrics_port": 2, "model_control_mode": "explicit", "metering": True}
    env = {ENV_PREFIX + name.upper(): str(value) for name, value in stated.items()}
    status, output = serve(env=env)
    assert (status, output) == (0, "")
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in stated.items()
    ]
    status, output = serve("--settings", str(write(tmp_path, "\n".join(lines))))
    assert (status, output) == (0, "")
    assert served[0] == served[1]
    for name, value in stated.items():
        assert getattr(served[0], name) == ((value,) if is_repeatable(name) else value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpc_prot = 1", "unknown setting 'grpc_prot'; did you mean 'grpc_port'?"),
        ("grpc-prot = 1", "unknown setting 'grpc-prot'; did you mean 'grpc_port'?"),
        ("zzz = 1", "unknown setting 'zzz'; there are model_repository, "),
        ('grpc_port = "1"', "'grpc_port' takes a int, not '1'"),
        ("grpc_port = true", "'grpc_port' takes a int, not True"),
        ("grpc_port = 1.5", "'grpc_port' takes a int, not 1.5"),
        ("reflection = 1", "'reflection' takes a bool, not 1"),
        ("model_repository = [1]", "takes a string or a list of strings"),
        ("[grpc]\nport = 1", "unknown setting 'grpc'"),
        ("grpc_port = ", "not TOML"),
        ("grpc_port = 1\ngrpc_port = 2", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_path(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidArgumentError) as caught:
        read_settings_file(path)
    assert message in caught.value.message
    assert caught.value.message.startswith(str(path))


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No such file"):
        read_settings_file(tmp_path / "missing.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgumentError, match="not TOML"):
        read_settings_file(tmp_path / "binary")


def test_a_whole_number_does_for_a_fraction(tmp_path: Path) -> None:
    assert read_settings_file(write(tmp_path, "exit_timeout_secs = 5")) == {"exit_timeout_secs": 5.0}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"model_repository": ()}, "--model-repository FOLDER"),
        ({"load_model": ("m",)}, "--load-model needs --model-control-mode explicit"),
        ({"grpc_port": -1}, "--grpc-port is a port"),
        ({"metrics_port": 65536}, "--metrics-port is a port"),
        ({"model_control_mode": "exlicit"}, "--model-control-mode is none or explicit or poll, not 'exlicit'"),
        ({"log_format": "xml"}, "--log-format is default or ISO8601 or json, not 'xml'"),
        ({"grpc_transport": "http"}, "--grpc-transport is"),
        ({"power_source": "sun"}, "--power-source is auto or nvml or rapl or modelled or none, not 'sun'"),
        ({"energy_sample_ms": 0}, "--energy-sample-ms must be greater than 0"),
        ({"threads_per_worker": 0}, "--threads-per-worker must be greater than 0"),
        ({"max_queue_requests": 0}, "--max-queue-requests must be"),
        ({"repository_poll_secs": float("nan")}, "--repository-poll-secs must be"),
        ({"repository_poll_secs": float("inf")}, "--repository-poll-secs must be"),
        ({"exit_timeout_secs": -0.1}, "--exit-timeout-secs must not be negative"),
        ({"drain_delay_secs": -1.0}, "--drain-delay-secs must not be negative"),
        ({"exit_timeout_secs": float("nan")}, "--exit-timeout-secs must"),
        ({"cpu_workers": -1}, "--cpu-workers must not be negative"),
        ({"max_message_bytes": 1 << 31}, "--max-message-bytes is at most 2147483647"),
        ({"worker_slot_bytes": 1000}, "--worker-slot-bytes must be at least 1048576"),
        ({"grpc_use_ssl": True, "grpc_server_key": "k"}, "--grpc-use-ssl needs --grpc-server-cert FILE"),
        ({"grpc_use_ssl": True, "grpc_server_cert": "c"}, "--grpc-use-ssl needs --grpc-server-key FILE"),
        ({"grpc_use_ssl_mutual": True} | PAIR, "--grpc-use-ssl-mutual needs --grpc-root-cert FILE"),
        (PAIR, "need --grpc-use-ssl or --grpc-use-ssl-mutual"),
        ({"grpc_use_ssl": True, "grpc_root_cert": "r"} | PAIR, "--grpc-root-cert needs --grpc-use-ssl-mutual"),
    ],
)
def test_a_value_that_cannot_be_is_told_by_its_flag(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        merge(REPOSITORY | stated)
    assert message in caught.value.message


def test_defaults_are_tritons_ports_and_modes() -> None:
    settings = merge(REPOSITORY)
    assert (settings.grpc_port, settings.metrics_port, settings.model_control_mode) == (8001, 8002, "none")
    assert (settings.allow_client_shm, settings.strict_readiness, settings.exit_timeout_secs) == (False, True, 30.0)
