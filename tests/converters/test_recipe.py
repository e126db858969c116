"""The recipe reader: what it takes, and that every mistake is a RecipeError with file, line and what to write."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from erg_converters.errors import RecipeError
from erg_converters.recipe import LISTS, TABLES, pass_settings, read_recipe
from erg_converters.settings import PassStep, Recipe
from erg_converters.tables import Lines, Place, doc
from hypothesis import given
from hypothesis import strategies as st

SMALL = """
[source]
path = "model"
[publish]
repository = "repo"
name = "m"
"""
RANDOM = '[evaluation]\nkind = "random"\n'


def read(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(RecipeError) as error:
        read(folder, text)
    return error.value.message.removeprefix(f"{folder}/")


def test_a_small_recipe_gets_every_default(tmp_path):
    recipe = read(tmp_path, SMALL)
    assert recipe.source.kind == "transformers"
    assert recipe.measure.batch_sizes == (1, 8, 32)
    assert recipe.folder == tmp_path
    assert recipe.candidates == ()
    assert len(recipe.sha256) == 64


def test_whole_numbers_stand_for_numbers_and_lists_become_tuples(tmp_path):
    recipe = read(tmp_path, SMALL + "[gate]\nmax_drop = 1\n[measure]\nlengths = []\n")
    assert (recipe.gate.max_drop, recipe.measure.lengths) == (1.0, ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SMALL + "[gatee]\n", r"recipe.toml:7: unknown table \[gatee\]; did you mean 'gate'\?"),
        (SMALL + "[gate]\nmax_dropp = 1", r"recipe.toml:8: gate.max_dropp is unknown; did you mean 'max_drop'\?"),
        (SMALL + "[gate]\nmetric = 'cosin'", r"recipe.toml:8: gate.metric is one of .*; did you mean 'cosine'\?"),
        (SMALL + "[gate]\nmax_drop = 'x'", r"recipe.toml:8: gate.max_drop takes a number, not 'x'"),
        (SMALL + "[gate]\nmax_drop = nan", r":8: gate.max_drop takes a finite number, not nan"),
        (SMALL + "[gate]\nmax_drop = -0.1", r":8: gate.max_drop is at least 0, not -0.1"),
        (SMALL + "[measure]\nbatch_sizes = [1, 0]", r":8: measure.batch_sizes is at least 1, not 0"),
        (SMALL + "[measure]\nbatch_sizes = []", r":8: measure.batch_sizes is empty"),
        (SMALL + "[measure]\nbatch_sizes = 8", r":8: measure.batch_sizes takes a list, not 8"),
        (SMALL + "[measure]\nrounds = true", r":8: measure.rounds takes a whole number, not True"),
        (SMALL + "[measure]\ndevices = ['tpu']", r":8: measure.devices names 'cpu'.*, not 'tpu'"),
        (SMALL.replace("name", "nme"), r"recipe.toml:6: publish.nme is unknown; did you mean 'name'\?"),
        (SMALL.replace('"m"', '"../m"'), r"recipe.toml:6: publish.name is no model name"),
        ("[publish]\nrepository = 'r'\nname = 'n'", r"table \[source\] is missing; `erg convert init MODEL`"),
        (
            "source = 3\n" + SMALL.replace("[source]\npath", "#"),
            r":1: 'source' is a table: write \[source\]",
        ),
        (SMALL + "[input]\nname = 'x'", r"recipe.toml:7: 'input' is a list of tables: write \[\[input\]\]"),
        (SMALL + "[[input]]\nname = 'x'\ndims = [1, 3]", r":9: input.dims begins with the batch axis, -1"),
        (SMALL + "[[input]]\nname = 'x'\ndims = [-1, 0]", r":9: input.dims has an axis of size 0"),
        (SMALL + "[[input]]\nname = 'x'\ndims = [-1]\ndatatype = 'FP31'", r":10: input.datatype is no datatype"),
        (SMALL + "[[input]]\nname = 'x'\ndims = [-1]\naxes = ['a', 'b']", r":10: input.axes names the 1 dynamic axes"),
        (
            SMALL + "[[input]]\nname = 'x'\ndims = [-1]\n[[input]]\nname = 'x'\ndims = [-1]",
            r":11: input.name .*ther",
        ),
        (SMALL + "[calibration]\nkind = 'npz'", r"recipe.toml:7: calibration.path is missing: kind = \"npz\" needs it"),
        (SMALL + "[calibration]\nkind = 'jsonl'\npath = 'x'", r":7: calibration.tokenizer is missing"),
        (SMALL + "[calibration]\nkind = 'python'\nentry = 'no'", r":9: calibration.entry is module:function, not 'no'"),
        (SMALL + "[calibration]\nkind = 'random'\nsamples = 0", r":9: calibration.samples is 0, which means all"),
        (SMALL + RANDOM + "[[candidate]]\nname = 'source'", r":10: candidate.name 'source' is the yardstick's"),
        (SMALL + RANDOM + "[[candidate]]\nname = 'a/b'", r":10: candidate.name names files, too"),
        (SMALL + RANDOM + "[[candidate]]\nname = 'a'\npasses = ['x']", r":11: candidate.passes is a list of tables"),
        (
            SMALL + RANDOM + "[[candidate]]\nname = 'a'\npasses = [{ a = 1 }]",
            r":11: candidate.passes.pass names the",
        ),
        (SMALL + "[[candidate]]\nname = 'a'", r"table \[evaluation\] is missing: .* kind = \"random\""),
        (SMALL.replace("path", "kind = 'onnx'\n#"), r"recipe.toml:2: source.path is missing"),
        (SMALL.replace("path", "kind = 'onnx'\nfactory = 'a:b'\npath"), r":4: source.factory is for kind = \"torch\""),
        (SMALL.replace("path", "kind = 'torch'\npath"), r":2: source.factory is missing: module:function"),
        (SMALL.replace("path", "kind = 'torch'\nfactory = 'a:b'\npath"), r":3: source.kind is torch, whose inputs"),
        ("\x00", "not TOML"),
        ("x = " + "[" * 3000, "not TOML"),
        ("x = " + "1" * 5000, "not TOML"),
    ],
)
def test_a_mistake_is_told_with_line_key_and_fix(tmp_path, text, told):
    assert re.search(told, refused(tmp_path, text))


def test_a_recipe_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("binary.toml", "missing.toml"):
        with pytest.raises(RecipeError, match=name):
            read_recipe(tmp_path / name)


def test_evaluation_on_the_samples_of_calibration_is_refused(tmp_path):
    same = '[calibration]\nkind = "npz"\npath = "d.npz"\nsamples = 10\n[evaluation]\nkind = "npz"\npath = "d.npz"\n'
    assert "skip = 10" in refused(tmp_path, SMALL + same)
    recipe = read(tmp_path, SMALL + same + "skip = 10\n")
    assert recipe.evaluation is not None
    assert recipe.evaluation.skip == 10
    assert "evaluation.skip" in refused(tmp_path, SMALL + same + "skip = 10\nseed = 3\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSettings:
    tool: Literal["a", "b"] = "a"
    alpha: float = field(default=0.5, metadata=doc("share", low=0, high=1))


def test_settings_of_a_pass_are_checked_where_they_stand(tmp_path):
    text = (
        SMALL
        + RANDOM
        + '[[candidate]]\nname = "c"\npasses = [\n  { pass = "p", tool = "b" },\n  { pass = "q", alpah = 1 },\n]'
    )
    good, wrong = read(tmp_path, text).candidates[0].passes
    assert (good.name, pass_settings(good, ExampleSettings)) == ("p", ExampleSettings(tool="b"))
    with pytest.raises(RecipeError, match=r"recipe.toml:13: candidate.passes.alpah is unknown; did you mean 'alpha'"):
        pass_settings(wrong, ExampleSettings)
    far = PassStep(name="q", stated={"alpha": 2}, place=Place(lines=Lines("f", ""), table="candidate", key="passes"))
    with pytest.raises(RecipeError, match="at most 1, not 2"):
        pass_settings(far, ExampleSettings)


def test_every_setting_says_what_it_means():
    for kind in (*TABLES.values(), *LISTS.values()):
        for item in dataclasses.fields(kind):
            assert item.metadata.get("doc"), f"{kind.__name__}.{item.name}"


_KEYS = sorted({item.name for kind in (*TABLES.values(), *LISTS.values()) for item in dataclasses.fields(kind)})
_SCALARS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.sampled_from(["true", "inf", "1979-05-27", '"npz"', '"random"', '"torch"', '"m:f"', '"FP32"', '"bf16"', '""']),
    st.text("abc/:-1 ", max_size=8).map(lambda text: f'"{text}"'),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.tuples(st.sampled_from(["pass", *_KEYS]), inner).map(lambda pair: f"{{ {pair[0]} = {pair[1]} }}"),
    ),
    max_leaves=5,
)
_LINES = st.one_of(
    st.sampled_from([f"[{name}]" for name in [*TABLES, *LISTS, "x", "candidate.passes"]]),
    st.sampled_from([f"[[{name}]]" for name in [*TABLES, *LISTS, "candidate.passes"]]),
    st.tuples(st.sampled_from(_KEYS), _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.text(max_size=12),
)


@given(lines=st.lists(_LINES, max_size=12), small=st.booleans())
def test_no_text_raises_anything_but_a_recipe_error(lines, small):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text((SMALL if small else "") + "\n".join(lines), encoding="utf-8", errors="replace")
        with contextlib.suppress(RecipeError):
            read_recipe(path)


@given(raw=st.binary(max_size=64))
def test_no_bytes_raise_anything_but_a_recipe_error(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_bytes(raw)
        with pytest.raises(RecipeError):
            read_recipe(path)
