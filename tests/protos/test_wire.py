"""Our messages against those that Triton's own client was generated from, field by field."""

import subprocess
import sys
from pathlib import Path

import pytest
from erg_server.pb import health_pb2, inference_pb2, model_config_pb2, reflection_pb2, reflection_v1alpha_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = {"erg"}
OWN_MESSAGES = {"ErgConfig", "Padding", "PaddedInput", "PaddedOutput", "ServiceObjective"}


def describe_field(field: FieldDescriptor) -> tuple:
    kind = field.message_type or field.enum_type
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        kind.full_name if kind else "",
        field.containing_oneof.name if field.containing_oneof else "",
    )


def describe_message(message: Descriptor, found: dict[str, object]) -> None:
    fields = [describe_field(field) for field in message.fields if field.name not in EXTENSIONS]
    found[message.full_name] = (sorted(fields), message.GetOptions().map_entry)
    for nested in message.nested_types:
        describe_message(nested, found)
    for enum in message.enum_types:
        describe_enum(enum, found)


def describe_enum(enum: EnumDescriptor, found: dict[str, object]) -> None:
    found[enum.full_name] = [(value.name, value.number) for value in enum.values]


def describe_files(*files) -> dict[str, object]:
    found: dict[str, object] = {}
    for file in files:
        for name, message in file.message_types_by_name.items():
            if name not in OWN_MESSAGES:
                describe_message(message, found)
        for enum in file.enum_types_by_name.values():
            describe_enum(enum, found)
        for service in file.services_by_name.values():
            found[service.full_name] = [
                (
                    method.name,
                    method.input_type.full_name,
                    method.output_type.full_name,
                    method.client_streaming,
                    method.server_streaming,
                )
                for method in service.methods
            ]
    return found


def test_every_message_enum_and_rpc_equals_tritonclients() -> None:
    grpc_client = pytest.importorskip("tritonclient.grpc")
    theirs = describe_files(grpc_client.model_config_pb2.DESCRIPTOR, grpc_client.service_pb2.DESCRIPTOR)
    ours = describe_files(model_config_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR)
    assert len(ours["inference.GRPCInferenceService"]) == 20  # type: ignore[arg-type]
    assert set(ours) == set(theirs)
    for name, described in theirs.items():
        assert ours[name] == described, name


def test_tritonclient_reads_a_config_with_our_extension() -> None:
    grpc_client = pytest.importorskip("tritonclient.grpc")
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8)
    config.erg.padding.input.add(name="ids", axis=1)
    read = grpc_client.model_config_pb2.ModelConfig.FromString(config.SerializeToString())
    assert (read.name, read.max_batch_size) == ("m", 8)
    assert model_config_pb2.ModelConfig.FromString(read.SerializeToString()) == config


def test_our_messages_stay_out_of_the_default_pool() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("erg_server/pb/inference.proto")


@pytest.mark.parametrize(
    ("module", "package"),
    [
        (health_pb2, "grpc.health.v1"),
        (reflection_pb2, "grpc.reflection.v1"),
        (reflection_v1alpha_pb2, "grpc.reflection.v1alpha"),
    ],
)
def test_standard_services_carry_their_standard_names(module, package: str) -> None:
    assert module.DESCRIPTOR.package == package


def test_both_reflection_versions_share_one_encoding() -> None:
    request = reflection_v1alpha_pb2.ServerReflectionRequest(host="h", list_services="*")
    assert reflection_pb2.ServerReflectionRequest.FromString(request.SerializeToString()).list_services == "*"


def test_generated_modules_are_up_to_date() -> None:
    pytest.importorskip("grpc_tools")
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/protos.py", "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
