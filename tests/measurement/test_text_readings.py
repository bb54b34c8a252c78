"""The loss on text as a reading: what of a passage is read, and what its address depends on.

Run: pytest tests/measurement/test_text_readings.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyablation.corpora.passages import PASSAGES
from tinyablation.corpora.tokenisation import TokenisationError
from tinyablation.engine.layer_removal import removal_losses
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.measurement.text_readings import LayerLosses
from tinyablation.runs.store import RunStore

KNOWN = [[f"w{1 + (7 * number + 3 * place) % 290}" for place in range(80)] for number in range(3)]


def put(folder: Path, texts: list[list[str]] = KNOWN) -> Path:
    (folder / PASSAGES).parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"passage {number}", "text": " ".join(words), "source": "made up"}
        for number, words in enumerate(texts)
    ]
    (folder / PASSAGES).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def bench(entry: Any, folder: Path) -> Bench:
    return Bench(Setup(entry=entry, corpora=folder), RunStore(folder / "store"), threads=1)


@pytest.mark.parametrize(("family", "positions"), [("gpt2", 64), ("mistral", 32)])
def test_passages_are_read_as_far_as_the_model_can(
    family: str, positions: int, tiny_entry: Any, tmp_path: Path
) -> None:
    """64: its context; 32: its sliding window."""
    made = bench(tiny_entry(family), put(tmp_path))
    found = made.reading_without_corpus(LayerLosses(2))
    tensors = found.tensors()
    assert tensors["tokens"].tolist() == [positions - 1] * 2
    texts = [(0, *(int(word[1:]) for word in words))[:positions] for words in KNOWN[:2]]
    losses = removal_losses(made.engine, texts)
    assert tensors["whole"] == pytest.approx(losses.whole, abs=1e-5)
    assert tensors["removed"] == pytest.approx(losses.removed, abs=1e-5)
    document = found.document()
    assert document["passages"] == ["passage 0", "passage 1"] and 0 <= document["noise"] < 1e-4
    short = made.reading_without_corpus(LayerLosses(2, 9)).tensors()
    assert short["tokens"].tolist() == [8, 8] and np.abs(short["whole"] - losses.whole).min() > 1e-3


def test_the_address_is_made_of_the_texts_that_are_read(tiny_entry: Any, tmp_path: Path) -> None:
    entry = tiny_entry("gpt2")
    one = bench(entry, put(tmp_path / "one"))
    more = bench(entry, put(tmp_path / "more", [*KNOWN, ["w1", "w2"]]))
    assert LayerLosses(3).name(one) == LayerLosses(3).name(more) != LayerLosses(2).name(one)
    other = bench(entry, put(tmp_path / "other", [KNOWN[0], ["w5"], KNOWN[2]]))
    assert LayerLosses(3).name(one) != LayerLosses(3).name(other)
    assert LayerLosses(1).name(one) == LayerLosses(1).name(other)


def test_a_passage_with_words_that_the_tokenizer_does_not_know_is_refused(
    tiny_entry: Any, tmp_path: Path
) -> None:
    made = bench(tiny_entry("gpt2"), put(tmp_path, [KNOWN[0], ["w1", "liberty"]]))
    with pytest.raises(TokenisationError, match="does not know all words of the passage 'passage "):
        made.reading_without_corpus(LayerLosses(2))
