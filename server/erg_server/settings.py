"""Every setting of `erg serve`, declared once: its flag, ERG_ variable, key in a file, default and help."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erg_server.errors import InvalidArgumentError

ENV_PREFIX = "ERG_"
MAX_MESSAGE_BYTES = (1 << 31) - 1
_METADATA_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def _setting(default: Any, group: str, text: str, choices: tuple[str, ...] = ()) -> Any:
    """A field with what the command line needs to know of it."""
    metadata = {"group": group, "help": text, "choices": choices}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """The server's settings. Flags carry Triton's names where Triton has one."""

    model_repository: tuple[str, ...] = _setting(
        (),
        "Models",
        "Folder of models in Triton's layout, or s3://BUCKET/PREFIX (gs://, az://; extra 'store'), fetched to "
        "--model-cache with credentials from AWS_… variables. Repeat it for several; a name may be in one only.",
    )
    model_cache: str = _setting(
        "",
        "Models",
        "Folder where models from buckets are kept; servers may share it. Without it /var/cache/erg where that can be "
        "written, else erg/models in the user's cache.",
    )
    require_digests: bool = _setting(
        False, "Models", "From buckets, take only versions whose manifest.json has the digests of their files."
    )
    model_control_mode: str = _setting(
        "none",
        "Models",
        "Who loads models: 'none' serves all of the repository, 'explicit' what --load-model and the load RPC name, "
        "'poll' follows the repository as it changes.",
        ("none", "explicit", "poll"),
    )
    load_model: tuple[str, ...] = _setting(
        (), "Models", "In explicit mode, load this model at start ('*' for all). Repeatable."
    )
    repository_poll_secs: float = _setting(15.0, "Models", "In poll mode, seconds between two looks at the repository.")
    strict_readiness: bool = _setting(
        True, "Models", "Readiness waits for every model that should serve, instead of the server alone."
    )

    grpc_address: str = _setting("0.0.0.0", "gRPC", "Address to listen on.")  # noqa: S104 (Triton's default)
    grpc_port: int = _setting(8001, "gRPC", "Port of the gRPC services; 0 takes a free one.")
    grpc_transport: str = _setting(
        "erg",
        "gRPC",
        "Which gRPC server answers: Erg's own, or grpcio's, which costs ten times the CPU and is there to compare.",
        ("erg", "grpcio"),
    )
    event_loop: str = _setting(
        "uvloop",
        "gRPC",
        "What waits for sockets: uvloop, or asyncio's own loop in Python, which costs a third more CPU, to compare.",
        ("uvloop", "asyncio"),
    )
    grpc_unix_socket: str = _setting("", "gRPC", "Also listen on a Unix socket at this path.")
    reuse_grpc_port: bool = _setting(
        False, "gRPC", "Share the port with other servers that do too (SO_REUSEPORT); the kernel spreads connections."
    )
    grpc_use_ssl: bool = _setting(False, "gRPC", "Serve TLS, with --grpc-server-cert and --grpc-server-key.")
    grpc_use_ssl_mutual: bool = _setting(
        False, "gRPC", "Serve TLS to callers alone whose certificate --grpc-root-cert has signed."
    )
    grpc_server_cert: str = _setting("", "gRPC", "PEM file of the certificate chain; read again as it changes.")
    grpc_server_key: str = _setting("", "gRPC", "PEM file of the certificate's key, without a password.")
    grpc_root_cert: str = _setting("", "gRPC", "PEM file of the roots of callers' certificates.")
    grpc_keepalive_time: int = _setting(
        7_200_000, "gRPC", "Milliseconds of silence after which a PING asks whether the caller is there."
    )
    grpc_keepalive_timeout: int = _setting(
        20_000, "gRPC", "Milliseconds that the answer to such a PING may take before the connection is closed."
    )
    grpc_max_connection_idle: int = _setting(
        0, "gRPC", "Milliseconds after which a connection without calls is closed; 0 keeps it."
    )
    grpc_max_connection_age: int = _setting(
        0, "gRPC", "Milliseconds after which a connection takes no more calls and its caller opens another; 0 is never."
    )
    grpc_max_connection_age_grace: int = _setting(
        0, "gRPC", "Milliseconds that the calls of a connection of that age have to end; 0 is as long as they take."
    )
    max_message_bytes: int = _setting(
        64 << 20, "gRPC", "Largest message taken or sent. Larger ones are refused with RESOURCE_EXHAUSTED."
    )
    reflection: bool = _setting(True, "gRPC", "Serve gRPC reflection, so that clients need no .proto files.")
    allow_client_shm: bool = _setting(
        False, "gRPC", "Let clients on this host pass tensors in POSIX shared memory (system shared memory extension)."
    )

    metrics_address: str = _setting("0.0.0.0", "Metrics and probes", "Address of /metrics, /livez and /readyz.")  # noqa: S104
    metrics_port: int = _setting(
        8002, "Metrics and probes", "Port of /metrics, /livez and /readyz; 0 takes a free one."
    )

    devices: tuple[str, ...] = _setting(
        (),
        "Workers",
        "Use these devices alone: cpu, gpu0, gpu0.mig1, a UUID, or gpu0:50% for a share by MPS, whose daemon must run. "
        "Repeatable, or a list with commas; without it every GPU and MIG instance, else the CPU.",
    )
    cpu_workers: int = _setting(
        0, "Workers", "Worker processes on CPU cores; 0 starts one for each core (none where a GPU is found)."
    )
    threads_per_worker: int = _setting(
        1, "Workers", "Cores a CPU worker pins itself to. 1 gives most throughput, more gives lower latency alone."
    )
    worker_slot_bytes: int = _setting(
        256 << 20, "Workers", "Address space of one batch's tensors in a worker; memory is used as batches need it."
    )
    memory_budget: tuple[str, ...] = _setting(
        (),
        "Workers",
        "Most memory of the models that are loaded at a time, for the machine's CPU workers together and for each GPU: "
        "8GiB, or for one kind cpu=8GiB, gpu=20GiB. Models beyond it are evicted and brought back on demand.",
    )

    price_file: str = _setting(
        "",
        "Cost",
        "TOML file of what a device-hour, a kWh and its carbon cost (docs/prices.toml is an example). It adds "
        "erg_cost_usd_total, dollars per 1,000 inferences and grams of CO2 to /metrics, and dollars to answers.",
    )
    tenant_metadata_key: str = _setting(
        "",
        "Cost",
        "Key of the call metadata that names who pays, as in x-tenant; costs are then counted by tenant as well. At "
        "most 1,000 names are told apart, the rest are 'other'. Callers are believed: have a gateway set it.",
    )

    power_source: str = _setting(
        "auto",
        "Energy",
        "What tells of energy: 'nvml' GPUs' counters, 'rapl' the CPU's and its memory's, 'modelled' the watts of "
        "--power-watts by utilisation, 'none', or 'auto': counters where there are any, else what is modelled.",
        ("auto", "nvml", "rapl", "modelled", "none"),
    )
    power_watts: tuple[str, ...] = _setting(
        (),
        "Energy",
        "Watts of the cores that the server may use, or of a GPU, idle and with all of it busy: cpu=IDLE:BUSY, "
        "gpu=IDLE:BUSY, gpu0=IDLE:BUSY. Repeatable. Where a counter measures, the idle watts to take off (cpu=IDLE).",
    )
    energy_sample_ms: int = _setting(
        100,
        "Energy",
        "Milliseconds between two readings of the counters; less is more exact, and takes more CPU. At least a second "
        "where nothing tells of energy.",
    )
    metering: bool = _setting(
        True, "Energy", "Book energy and device time by model, version and purpose; off to compare what that costs."
    )

    latency_cache: str = _setting(
        "", "Overload", "File that keeps how long models' batches take over restarts; without it, each start measures."
    )
    max_queue_requests: int = _setting(10_000, "Overload", "Most requests that wait for one model; more are refused.")
    max_queue_bytes: int = _setting(1 << 30, "Overload", "Most input bytes that wait for one model; more are refused.")
    exit_timeout_secs: float = _setting(
        30.0, "Overload", "After SIGTERM, seconds that accepted requests have to finish."
    )

    log_verbose: int = _setting(0, "Logs", "Verbose level; 1 logs each load, worker and connection event in detail.")
    log_format: str = _setting("default", "Logs", "Time format of log lines.", ("default", "ISO8601", "json"))
    trace_folder: str = _setting(
        ".", "Logs", "Where trace files go: the trace settings RPC names files in this folder and in no other."
    )
    log_file: str = _setting("", "Logs", "Write logs to this file instead of standard error.")


def setting_fields() -> tuple[dataclasses.Field[Any], ...]:
    """The settings in the order in which they are declared."""
    return dataclasses.fields(ServeSettings)


def setting_type(name: str) -> type:
    """The Python type of a setting, `str` for a repeatable one."""
    hint = typing.get_type_hints(ServeSettings)[name]
    if typing.get_origin(hint) is tuple:
        return str
    assert not isinstance(hint, types.UnionType)
    return typing.cast("type", hint)


def is_repeatable(name: str) -> bool:
    """Whether a setting takes several values."""
    return typing.get_origin(typing.get_type_hints(ServeSettings)[name]) is tuple


def read_settings_file(path: Path) -> dict[str, Any]:
    """The settings stated in a TOML file, whose keys are the flags without their dashes (`grpc_port = 8001`).

    Raises:
        InvalidArgumentError: unreadable, not TOML, an unknown key or a value of the wrong type.
    """
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path}: not TOML: {error}") from error
    return {key.replace("-", "_"): _checked(path, key, value) for key, value in stated.items()}


def _checked(path: Path, key: str, value: object) -> object:
    name = key.replace("-", "_")
    known = [item.name for item in setting_fields()]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known)}"
        raise InvalidArgumentError(f"{path}: unknown setting '{key}'{hint}")
    expected = setting_type(name)
    if is_repeatable(name):
        values = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) for item in values):
            return tuple(values)
        raise InvalidArgumentError(f"{path}: '{key}' takes a string or a list of strings, not {value!r}")
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not expected:
        raise InvalidArgumentError(f"{path}: '{key}' takes a {expected.__name__}, not {value!r}")
    return value


def merge(stated: Mapping[str, Any]) -> ServeSettings:
    """Settings from stated values, checked against each other.

    Raises:
        InvalidArgumentError: a value out of range, or two that exclude each other; the message names the flags.
    """
    settings = ServeSettings(**stated)
    if not settings.model_repository:
        raise InvalidArgumentError("no model repository: give --model-repository FOLDER (or ERG_MODEL_REPOSITORY)")
    if settings.load_model and settings.model_control_mode != "explicit":
        raise InvalidArgumentError("--load-model needs --model-control-mode explicit; other modes load what is there")
    _check_values(settings)
    if settings.price_file and not settings.metering:
        raise InvalidArgumentError("--price-file needs --metering, which counts the time and energy that it prices")
    _check_metadata_key(settings.tenant_metadata_key)
    _check_tls(settings)
    return settings


def _check_values(settings: ServeSettings) -> None:
    """Every setting by itself."""
    for item in setting_fields():
        choices, value = item.metadata["choices"], getattr(settings, item.name)
        if choices and value not in choices:
            raise InvalidArgumentError(f"--{item.name.replace('_', '-')} is {' or '.join(choices)}, not '{value}'")
    for name in ("grpc_port", "metrics_port"):
        if not 0 <= getattr(settings, name) <= 65535:
            raise InvalidArgumentError(f"--{name.replace('_', '-')} is a port: 0 to 65535")
    for name in (
        "threads_per_worker",
        "max_queue_requests",
        "max_queue_bytes",
        "max_message_bytes",
        "energy_sample_ms",
        "grpc_keepalive_time",
        "grpc_keepalive_timeout",
        "repository_poll_secs",
    ):
        # Written so that it is false for NaN.
        if not 0 < getattr(settings, name) < math.inf:
            raise InvalidArgumentError(f"--{name.replace('_', '-')} must be greater than 0")
    for name in (
        "cpu_workers",
        "exit_timeout_secs",
        "log_verbose",
        "grpc_max_connection_idle",
        "grpc_max_connection_age",
        "grpc_max_connection_age_grace",
    ):
        if not 0 <= getattr(settings, name) < math.inf:
            raise InvalidArgumentError(f"--{name.replace('_', '-')} must not be negative")
    if settings.max_message_bytes > MAX_MESSAGE_BYTES:
        raise InvalidArgumentError(f"--max-message-bytes is at most {MAX_MESSAGE_BYTES}, gRPC's own limit")
    if settings.worker_slot_bytes < 1 << 20:
        raise InvalidArgumentError("--worker-slot-bytes must be at least 1048576 (1 MiB)")


def _check_metadata_key(key: str) -> None:
    """What gRPC calls a metadata key; one of its own, or of bytes, names nobody."""
    if key and (not _METADATA_KEY.fullmatch(key) or key.endswith("-bin") or key.startswith("grpc-")):
        raise InvalidArgumentError(
            f"--tenant-metadata-key '{key}' is no key of metadata: lower-case letters, digits, '-', '_' and '.', as in "
            "x-tenant; grpc-… is gRPC's own, and …-bin carries bytes"
        )


def _check_tls(settings: ServeSettings) -> None:
    """What TLS needs, and nothing of it where it is off: a certificate that is not used is a server in the clear."""
    mutual = settings.grpc_use_ssl_mutual
    if settings.grpc_use_ssl or mutual:
        for name, value in (
            ("--grpc-server-cert", settings.grpc_server_cert),
            ("--grpc-server-key", settings.grpc_server_key),
            *([("--grpc-root-cert", settings.grpc_root_cert)] if mutual else []),
        ):
            if not value:
                raise InvalidArgumentError(f"--grpc-use-ssl{'-mutual' * mutual} needs {name} FILE")
    elif settings.grpc_server_cert or settings.grpc_server_key or settings.grpc_root_cert:
        raise InvalidArgumentError(
            "--grpc-server-cert, --grpc-server-key and --grpc-root-cert need --grpc-use-ssl or --grpc-use-ssl-mutual; "
            "without it the server would answer in the clear"
        )
    if settings.grpc_root_cert and not mutual:
        raise InvalidArgumentError(
            "--grpc-root-cert needs --grpc-use-ssl-mutual; otherwise no caller is asked for its own"
        )
