"""What each example renders, kept beside the tests: a change of a template shows in review as a change of its objects.

`ERG_WRITE_GOLDEN=1 pytest tests/helm/test_golden.py`, or `make golden`, writes them anew.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from tests.helm.chart import example, example_names, render_text

GOLDEN = Path(__file__).parent / "golden"
# Files of the chart as they are, which have tests of their own.
LEFT_OUT = ("dashboards.yaml", "prometheusrule.yaml")


def golden(name: str) -> str:
    """What an example renders, without what is the same in every one."""
    documents = render_text(example(name)).split("---\n")
    return "---\n".join(one for one in documents if not one.partition("\n")[0].endswith(LEFT_OUT))


def test_an_example_renders_what_its_golden_file_says(example_name: str) -> None:
    rendered, kept = golden(example_name), GOLDEN / f"{example_name}.yaml"
    if os.environ.get("ERG_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        kept.write_text(rendered, encoding="utf-8")
    before = kept.read_text(encoding="utf-8") if kept.exists() else ""
    changes = difflib.unified_diff(
        before.splitlines(), rendered.splitlines(), f"golden/{kept.name}", "rendered now", lineterm="", n=6
    )
    told = "\n".join(changes)
    if told:
        pytest.fail(f"{told}\n\nIf it is meant: make golden", pytrace=False)


def test_no_golden_file_is_of_an_example_that_is_gone() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {"defaults", *example_names()}
