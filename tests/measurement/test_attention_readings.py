"""Readings of attention: what they compute, what their address depends on, and that they travel.

Run: pytest tests/measurement/test_attention_readings.py
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benches import bench_of
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.measurement.attention_readings import (
    GivenTexts,
    MarkedText,
    OneToken,
    RandomTokens,
    RepeatedTokens,
    RepeatedWords,
)
from tinyablation.measurement.bench import Bench
from tinyablation.runs.address import NO_CORPUS

# "A B C A": the last token's key is the one after its first copy.
TEXTS = GivenTexts(
    (
        MarkedText(" red blue green red", ((4, 2),)),
        MarkedText(" blue red", ((1, 0), (2, 0))),
    ),
    "induction",
)
# A word of six letters is that many tokens to a tiny vocabulary.
WORDS = RepeatedWords(4, 2, most_tokens=8)
SMALL = (RepeatedTokens(4, 6), RandomTokens(4, 10), OneToken(4, 10), TEXTS, WORDS)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    # A corpora folder that is not there: none of these readings may look for one.
    store = tmp_path_factory.mktemp("runs")
    return bench_of("tiny-llama", store, store / "none")


@pytest.mark.parametrize("wanted", SMALL)
def test_a_reading_has_its_scores_of_every_sequence_and_head(bench: Bench, wanted: Any) -> None:
    found = bench.reading_without_corpus(wanted)
    document, tensors = found.document(), found.tensors()
    own = {"sink", "previous_token"}
    if wanted is TEXTS:
        own |= {"induction"}
    if isinstance(wanted, RepeatedTokens):
        own |= {"induction", "duplicate_token"}
    if isinstance(wanted, RepeatedWords):
        own |= {"induction", "concept"}
    assert set(tensors) == set(document["scores"]) == own
    count = document["n_sequences"]
    for values in tensors.values():
        assert values.dtype == np.float32
        assert values.shape == (count, bench.facts.n_layers, bench.facts.n_heads)
        assert values.min() >= 0 and values.max() <= 1
    assert len(document["ids"]) == count == (2 if wanted is TEXTS else 4)
    # The first of them again, by a plain pass.
    ids = torch.tensor(document["ids"][:1])
    with torch.no_grad():
        patterns = bench.model.model(ids, output_attentions=True).attentions
    expected = torch.cat(patterns)[..., 0].mean(-1)
    assert np.abs(tensors["sink"][0] - expected.numpy()).max() < 1e-5
    assert bench.reading_without_corpus(wanted) == found


def test_inputs_are_as_their_names_say(bench: Bench) -> None:
    ids = {type(each): bench.reading_without_corpus(each).document()["ids"] for each in SMALL}
    bos = bench.model.bos_id
    assert bos is not None
    for row in ids[RepeatedTokens]:
        assert row[0] == bos and row[1:7] == row[7:] and len(row) == 13
    assert all(row[0] == bos and len(set(row)) == len(row) == 10 for row in ids[RandomTokens])
    assert all(set(row) == {row[0]} and len(row) == 10 for row in ids[OneToken])
    for row in ids[RepeatedWords]:
        copy = len(row) // 2
        assert row[0] == bos and row[1 : copy + 1] == row[copy + 1 :]
        words = bench.model.tokenizer.decode(row[1:]).split()
        assert len(set(words)) == 2 and all(len(word) >= 6 for word in words)
    assert ids[GivenTexts][0][0] == bos and ids[GivenTexts][0][1] == ids[GivenTexts][0][4]


def test_marked_positions_are_what_the_score_is_read_at(bench: Bench) -> None:
    found = bench.reading_without_corpus(TEXTS)
    for row, text in enumerate(TEXTS.texts):
        ids = torch.tensor([found.document()["ids"][row]])
        with torch.no_grad():
            pattern = torch.cat(bench.model.model(ids, output_attentions=True).attentions)
        expected = torch.stack([pattern[..., q, k] for q, k in text.pairs]).mean(0)
        assert np.abs(found.tensors()["induction"][row] - expected.numpy()).max() < 1e-5
    beyond = GivenTexts((MarkedText(" red", ((7, 0),)),), "induction")
    with pytest.raises(EngineError, match=r"sequence 0: \(7, 0\) is no query and key"):
        beyond.compute(bench)


def test_the_ends_of_words_are_where_the_words_end(bench: Bench) -> None:
    """Word by word, from the tokens alone."""
    found = bench.reading_without_corpus(WORDS)
    for row, ids in enumerate(found.document()["ids"]):
        tokens = [bench.model.tokenizer.decode([id]) for id in ids]
        begins = [n for n, token in enumerate(tokens) if token.startswith(" ")]
        assert len(begins) == 4
        with torch.no_grad():
            given = bench.model.model(torch.tensor([ids]), output_attentions=True)
        pattern = torch.cat(given.attentions)
        # From the end of the first word's second copy to the second word's first.
        for score, key in (("induction", begins[1]), ("concept", begins[2] - 1)):
            read, expected = found.tensors()[score][row], pattern[..., begins[3] - 1, key]
            assert np.abs(read - expected.numpy()).max() < 1e-5


def test_the_address_has_what_the_figures_depend_on(bench: Bench, tmp_path: Path) -> None:
    def name(wanted: Any, **options: Any) -> str:
        made = bench_of("tiny-llama", tmp_path, tmp_path, **options)
        return made.config_without_corpus(wanted.name(made)).name

    config = bench.config_without_corpus(RepeatedTokens().name(bench))
    assert config.name == f"tiny-llama-attention-repeated-25-x100-v1-no-corpus_{config.hash}"
    assert (config.condition, config.corpus_hash, config.split_hash) == (NO_CORPUS, None, None)
    assert config.weight_hash == bench.facts.weight_hash and config.bos is True
    wanted = [
        *SMALL,
        RepeatedTokens(),
        RepeatedTokens(99),
        RepeatedTokens(length=24),
        RepeatedWords(),
        RepeatedWords(99),
        RepeatedWords(most_tokens=5),
        replace(TEXTS, score="other"),
        replace(TEXTS, texts=TEXTS.texts[::-1]),
    ]
    names = [name(each) for each in wanted]
    assert len(set(names)) == len(names)
    assert name(RepeatedTokens(), seed=1) != name(RepeatedTokens())
    assert name(RepeatedTokens(), dtype="bfloat16") != name(RepeatedTokens())
    # What decides on corpora alone is no part of it.
    for same in ({"protocol": "published"}, {"share": 0.5}, {"per_relation": 1}):
        assert name(RepeatedTokens(), **same) == name(RepeatedTokens())
