import json
import sys

import numpy as np
import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.input_data import FileScenario
from erg_loadtest.tensors import InputSpec, Signature
from erg_loadtest.text_data import TextOptions, read_texts
from erg_server.pb import inference_pb2
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = {"[PAD]": 9, "[UNK]": 1, "the": 2, "cat": 3, "sat": 4}


def signature(*names, shape=(-1, -1), max_batch_size=8, datatype="INT64"):
    inputs = tuple(InputSpec(name=name, datatype=datatype, shape=shape) for name in names)
    return Signature(model="text", version="", max_batch_size=max_batch_size, inputs=inputs)


BERT = signature("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture
def tokenizer(tmp_path):
    made = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "the cat sat"}\n\n"the dog"\n')
    return path


def tensors(path, model, batch_size=1, **options):
    scenario = FileScenario(path=path, batch_size=batch_size, text=TextOptions(**options))
    found = []
    for payload in scenario.payloads(model):
        request = inference_pb2.ModelInferRequest.FromString(payload.body)
        found.append(
            {
                entry.name: np.frombuffer(raw, "<i8").reshape(tuple(entry.shape)).tolist()
                for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True)
            }
        )
    return found


def test_texts_become_what_the_model_s_inputs_are_named_for(tokenizer, texts):
    first, second = tensors(texts, BERT, tokenizer=tokenizer)
    assert first == {"input_ids": [[2, 3, 4]], "attention_mask": [[1, 1, 1]], "token_type_ids": [[0, 0, 0]]}
    assert second["input_ids"] == [[2, 1]]


def test_texts_of_one_batch_are_padded_to_the_longest_with_the_mask_saying_so(tokenizer, texts):
    (batch,) = tensors(texts, BERT, batch_size=2, tokenizer=tokenizer)
    assert batch["input_ids"] == [[2, 3, 4], [2, 1, 9]]
    assert batch["attention_mask"] == [[1, 1, 1], [1, 1, 0]]


def test_a_model_of_fixed_length_gets_that_length(tokenizer, texts):
    longer = tensors(texts, signature("ids", "position_ids", shape=(-1, 4)), tokenizer=tokenizer)
    assert [row["ids"] for row in longer] == [[[2, 3, 4, 9]], [[2, 1, 9, 9]]]
    assert longer[0]["position_ids"] == [[0, 1, 2, 3]]
    shorter = tensors(texts, signature("ids", shape=(-1, 2)), tokenizer=tokenizer)
    assert [row["ids"] for row in shorter] == [[[2, 3]], [[2, 1]]]


def test_the_maximum_length_cuts_texts(tokenizer, texts):
    assert tensors(texts, BERT, tokenizer=tokenizer / "tokenizer.json", max_length=1)[0]["input_ids"] == [[2]]


def test_without_a_known_batch_axis_the_missing_axis_is_one(tokenizer, texts):
    unknown = signature("input_ids", max_batch_size=0)
    assert tensors(texts, unknown, tokenizer=tokenizer)[0] == {"input_ids": [[2, 3, 4]]}


@pytest.mark.parametrize(("shape", "max_batch_size"), [((-1, 1), 8), ((-1,), 0), ((-1, -1), 0)])
def test_a_model_of_strings_gets_the_text_itself(texts, shape, max_batch_size):
    model = signature("query", shape=shape, max_batch_size=max_batch_size, datatype="BYTES")
    payload = FileScenario(path=texts).payloads(model)[0]
    request = inference_pb2.ModelInferRequest.FromString(payload.body)
    assert list(request.inputs[0].shape) == [1] * len(shape)
    assert request.raw_input_contents[0] == b"\x0b\0\0\0the cat sat"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "holds no text"),
        ('"a"\n{', r"texts\.jsonl:2: not a line of JSON"),
        ('{"body": "x"}', r"texts\.jsonl:1: no text in 'text': it has body; say which by --text-field"),
        ("7", r"texts\.jsonl:1: no text"),
    ],
)
def test_lines_without_a_text_are_refused_by_their_number(texts, lines, message):
    texts.write_text(lines)
    with pytest.raises(PlanError, match=message):
        read_texts(texts, "text")


def test_another_field_may_be_named(texts):
    texts.write_text('{"body": "x"}')
    assert read_texts(texts, "body") == [(f"{texts}:1", "x")]


def test_a_model_that_takes_no_text_is_refused_with_the_input_s_name(tokenizer, texts):
    with pytest.raises(PlanError, match=r"input 'pixels' \(INT64\) .* none that a tokenizer gives"):
        tensors(texts, signature("pixels"), tokenizer=tokenizer)
    with pytest.raises(PlanError, match="give --tokenizer"):
        tensors(texts, BERT)
    odd = (*signature("ids", shape=(-1, 4)).inputs, *signature("mask", shape=(-1, 5)).inputs)
    with pytest.raises(PlanError, match="must agree"):
        tensors(texts, Signature(model="m", version="", max_batch_size=1, inputs=odd), tokenizer=tokenizer)


def test_a_tokenizer_s_own_padding_gives_way_to_the_request_s(tokenizer, texts):
    file = tokenizer / "tokenizer.json"
    own = Tokenizer.from_file(str(file))
    own.enable_padding(length=16, pad_id=7)
    own.save(str(file))
    (batch,) = tensors(texts, BERT, batch_size=2, tokenizer=tokenizer)
    assert batch["input_ids"] == [[2, 3, 4], [2, 1, 7]]


def test_half_a_surrogate_pair_is_replaced(texts):
    texts.write_text('"a\\ud800"')
    assert read_texts(texts, "text") == [(f"{texts}:1", "a?")]


def test_a_file_that_is_no_tokenizer_is_refused(texts):
    with pytest.raises(PlanError, match=r"not a tokenizer\.json"):
        tensors(texts, BERT, tokenizer=texts)
    with pytest.raises(PlanError, match="--max-length"):
        TextOptions(max_length=0)


def test_without_the_library_the_extra_is_named(tokenizer, texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PlanError, match=r"erg\[loadtest\]"):
        tensors(texts, BERT, tokenizer=tokenizer)


@given(st.lists(st.text(), min_size=1))
def test_any_text_written_as_json_is_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("texts") / "t.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in written))
    assert [text for _, text in read_texts(path, "text")] == written


@given(st.text())
def test_any_file_is_texts_or_a_typed_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("texts") / "t.jsonl"
    path.write_text(content, encoding="utf-8")
    try:
        texts = read_texts(path, "text")
    except PlanError:
        return
    assert all(text.encode() is not None for _, text in texts)
