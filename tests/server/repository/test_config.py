import contextlib
import json
from pathlib import Path

import pytest
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.config import find_config, format_pbtxt, parse_config, parse_override, read_config
from erg_server.repository.problem import ConfigError
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, MessageToJson
from hypothesis import given
from hypothesis import strategies as st

PBTXT = """
name: "m"  # a comment
max_batch_size: 8
input [
  { name: "a" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: 'b', data_type: TYPE_INT64; dims: 4 dims: 0x5 }
]
dynamic_batching <
  preferred_batch_size: [ 4, 8 ]
  priority_queue_policy { key: 1 value: { max_queue_size: 3 timeout_action: DELAY } }
>
parameters: { key: "k" value: { string_value: "v" "w\\n" } }
erg { padding { input { name: "a" axis: 1 value: -1.5e0f mask: false } } pinned: true weight: 2.5 }
"""

TOML = """
name = "m"
max_batch_size = 8
[[input]]
name = "a"
data_type = "TYPE_FP32"
dims = [
  -1,  # any length
  3,
]
[[input]]
name = 'b'
data_type = "TYPE_INT64"
dims = [4, 5]
[dynamic_batching]
preferred_batch_size = [4, 8]
priority_queue_policy.1 = { max_queue_size = 3, timeout_action = "DELAY" }
[parameters]
k = "vw\\n"
[erg]
pinned = true
weight = 2.5
[[erg.padding.input]]
name = "a"
axis = 1
value = -1.5
mask = false
"""


def problems_of(text: str, notation="pbtxt") -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "file", notation)
    return [(each.line, each.key, each.message + each.suggestion) for each in caught.value.problems]


def test_all_notations_say_the_same() -> None:
    config = parse_config(PBTXT, "config.pbtxt", "pbtxt").config
    assert config == text_format.Parse(PBTXT, pb.ModelConfig())
    assert parse_config(TOML, "config.toml", "toml").config == config
    assert parse_override(MessageToJson(config)).config == config
    assert parse_override(MessageToJson(config, preserving_proto_field_name=True)).config == config


def test_lines_are_known_in_pbtxt_and_toml() -> None:
    lines = parse_config(PBTXT, "c", "pbtxt").lines
    assert (lines["input[1].dims"], lines["parameters.k"], lines["max_batch_size"]) == (6, 12, 3)
    lines = parse_config(TOML, "c", "toml").lines
    assert (lines["input[0].dims[1]"], lines["input[1].dims"], lines["parameters.k"]) == (9, 14, 19)
    assert (lines["dynamic_batching.priority_queue_policy.1"], lines["erg.padding.input[0].value"]) == (17, 26)


def test_toml_lines_survive_quotes_brackets_and_long_strings() -> None:
    text = '[parameters]\na = """x = 1\n# [no]\n"""\n"b.c" = \'[[{\' # }\nd = "\\"]"\n[[input]]\nname = "z"\n'
    document = parse_config(text, "c", "toml")
    assert {key: document.lines[f"parameters.{key}"] for key in ("a", "b.c", "d")} == {"a": 2, "b.c": 5, "d": 6}
    assert document.lines["input[0].name"] == 8
    assert document.config.parameters["a"].string_value == "x = 1\n# [no]\n"


def test_every_fault_is_told_with_line_key_and_what_is_meant() -> None:
    text = 'nme: "m"\nmax_batch_size: "x"\ninput { data_type: FP32 dims: [1.5]\n foo { } }\nplatform: abc\n'
    assert problems_of(text) == [
        (1, "nme", "unknown keydid you mean 'name'?"),
        (2, "max_batch_size", "expected an integer, got 'x'"),
        (3, "input[0].data_type", "'FP32' is not a value of DataTypedid you mean 'TYPE_FP32'?"),
        (3, "input[0].dims[0]", "expected an integer, got 1.5"),
        (
            4,
            "input[0].foo",
            "unknown keyallowed: " + ", ".join(sorted(field.name for field in pb.ModelInput.DESCRIPTOR.fields)),
        ),
        (5, "platform", "expected a quoted string, got 'abc'"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('name: "a"\nname: "b"', 2, "given twice"),
        ("dynamic_batching { }\nsequence_batching { }", 2, "cannot be given beside 'dynamic_batching'"),
        ("max_batch_size: 2147483648", 1, "out of range"),
        ("max_batch_size: [ 1, 2 ]", 1, "expected one value"),
        ("dynamic_batching: 1", 1, "expected a block"),
        ("input: 1", 1, "expected a block"),
        ("model_transaction_policy { decoupled: 2 }", 1, "expected true or false"),
        ('input { data_type: "BYTES" }', 1, "did you mean 'TYPE_STRING'?"),
        ('parameters { key: "a" }\nparameters { key: "a" }', 2, "given twice"),
        ('parameters { value { string_value: "a" } }', 1, "no 'key'"),
        ('parameters { key: "a" valeu { } }', 1, "did you mean 'value'?"),
        ("input {\n name: 'a'\n", 3, "opened on line 1 is not closed"),
        ('name: "a', 1, "does not end on its line"),
        ("name 3", 1, "expected ':' or '{'"),
        ("input [ { } { } ]", 1, "expected ',' or ']'"),
        ("\n}", 2, "expected a key"),
        ("name:", 1, "expected a value"),
        ("name: @", 1, "unexpected '@'"),
        ("max_batch_size: 08", 1, "not a number"),
        ("input { " * 100, 1, "nested more than"),
        ("input: " + "[" * 100, 1, "nested more than"),
    ],
)
def test_faults_of_pbtxt(text: str, line: int, message: str) -> None:
    [(found, _, told)] = problems_of(text)
    assert found == line
    assert message in told


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a = ", 1, "not valid TOML"),
        ("name = 1\n", 1, "expected a quoted string"),
        ("\nmax_batch_size = 1979-05-27\n", 2, "a date has no place"),
        ("[input]\nname = 'a'\nnam = 1", 3, "did you mean 'name'?"),
        ("x = " + "[" * 90 + "]" * 90, 1, "nested more than"),
        ("[dynamic_batching.priority_queue_policy.x]\n", 1, "expected an integer"),
    ],
)
def test_faults_of_toml(text: str, line: int, message: str) -> None:
    told = problems_of(text, "toml")
    assert any(found == line and message in each for found, _, each in told), told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"name": "a", "name": "b"}', "given twice"),
        ('{"maxBatchSize": "x"}', "expected an integer"),
        ('{"maxBatchSize": 1, "max_batch_size": 1}', "given twice"),
        ('{"a": ' * 200 + "1" + "}" * 200, "nested more than"),
    ],
)
def test_faults_of_json(text: str, message: str) -> None:
    assert message in problems_of(text, "json")[0][2]


def test_json_null_stands_for_a_field_left_out() -> None:
    assert not parse_override('{"name": null, "max_batch_size": 2}').gives("name")


def test_a_model_has_one_configuration(tmp_path: Path) -> None:
    assert find_config(tmp_path) is None
    assert read_config(tmp_path).config == pb.ModelConfig()
    (tmp_path / "config.toml").write_text("max_batch_size = 3")
    assert read_config(tmp_path).config.max_batch_size == 3
    (tmp_path / "config.pbtxt").write_text("max_batch_size: 3")
    with pytest.raises(ConfigError, match="one configuration"):
        read_config(tmp_path)


@st.composite
def configs(draw) -> pb.ModelConfig:
    """Any configuration, its fields filled at most three messages deep."""
    config = pb.ModelConfig()
    draw_fields(draw, config, 3)
    return config


def draw_fields(draw, message, depth: int) -> None:
    names = [field.name for field in message.DESCRIPTOR.fields if depth > 0 or field.message_type is None]
    for name in draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []:
        field = message.DESCRIPTOR.fields_by_name[name]
        count = draw(st.integers(0, 2)) if field.is_repeated else 1
        target = getattr(message, name)
        for _ in range(count):
            if field.message_type is None:
                value = draw(scalars(field))
                if field.is_repeated:
                    target.append(value)
                else:
                    setattr(message, name, value)
            elif field.message_type.GetOptions().map_entry:
                # protobuf leaves an empty key out of its text, which we refuse as a slip.
                key = draw(scalars(field.message_type.fields_by_name["key"]).filter(bool))
                value_field = field.message_type.fields_by_name["value"]
                if value_field.message_type is None:
                    target[key] = draw(scalars(value_field))
                else:
                    draw_fields(draw, target[key], depth - 1)
            else:
                child = target.add() if field.is_repeated else target
                child.SetInParent()
                draw_fields(draw, child, depth - 1)


def scalars(field: FieldDescriptor):
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return st.floats(width=32, allow_nan=False)
    bits = 31 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 63
    unsigned = kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    return st.integers(0 if unsigned else -(2**bits), 2**bits - 1)


def toml_value(value) -> str:
    if isinstance(value, dict):
        pairs = (f"{toml_value(key)} = {toml_value(each)}" for key, each in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    # What JSON escapes in two halves, TOML wants in one.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(configs())
def test_any_configuration_survives_each_notation(config) -> None:
    assert parse_config(format_pbtxt(config), "c", "pbtxt").config == config
    # Infinity is a string in JSON, which a configuration never needs.
    plain = MessageToDict(config, preserving_proto_field_name=True, use_integers_for_enums=False)
    if "Infinity" not in json.dumps(plain):
        assert parse_override(MessageToJson(config)).config == config
        typed = json.loads(json.dumps(plain), parse_float=float)
        lines = "\n".join(f"{key} = {toml_value(value)}" for key, value in integers(typed, config).items())
        assert parse_config(lines, "c", "toml").config == config


def integers(plain, message):
    """JSON's strings for 64-bit integers, as the integers that TOML has."""
    result: dict[str, object] = {}
    for name, value in plain.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        wide = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
        if is_map:
            nested = field.message_type.fields_by_name["value"].message_type is not None
            children = {str(key): each for key, each in getattr(message, name).items()}
            result[name] = {k: integers(v, children[k]) if nested else v for k, v in value.items()}
        elif field.message_type is not None and field.is_repeated:
            result[name] = [integers(v, m) for v, m in zip(value, getattr(message, name), strict=True)]
        elif field.message_type is not None:
            result[name] = integers(value, getattr(message, name))
        elif wide:
            result[name] = [int(v) for v in value] if field.is_repeated else int(value)
        else:
            result[name] = value
    return result


@given(st.text(max_size=200), st.sampled_from(["pbtxt", "toml", "json"]))
def test_no_text_makes_a_parser_fail_but_with_its_own_error(text: str, notation) -> None:
    with contextlib.suppress(ConfigError):
        parse_config(text, "c", notation)


TOKENS = ['name: "a"', "input", "{", "}", "[", "]", ":", ",", "dims", "1", '"', "#", "\n", "<", ">"]


@given(st.lists(st.sampled_from(TOKENS)))
def test_no_tokens_make_the_pbtxt_parser_fail_but_with_its_own_error(tokens: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        parse_config(" ".join(tokens), "c", "pbtxt")
