"""Scores of attention heads: of ideal heads they are 1, and of others the bridge's means.

Run: pytest tests/engine/test_attention_scores.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import run_cached
from tests.by_hand import plain
from tests.conftest import N_HEADS, N_LAYERS, VOCABULARY
from tests.induction_circuit import (
    DUPLICATE_HEAD,
    INDUCTION_HEAD,
    PREVIOUS_HEAD,
    SINK_HEAD,
    load_induction_circuit,
)
from tinyablation.corpora.token_sequences import (
    one_token_sequences,
    ordinary_ids,
    random_sequences,
)
from tinyablation.engine import attention_scores as scoring
from tinyablation.engine.attention_scores import (
    CONCEPT,
    DUPLICATE,
    INDUCTION,
    PREVIOUS,
    SINK,
    attention_scores,
    position_pairs,
    repeat_pairs,
    word_pairs,
)
from tinyablation.engine.engine import Engine
from tinyablation.engine.prompt_checks import EngineError

TOLERANCE = 1e-5
LENGTH = 7
ORDINARY = np.arange(1, VOCABULARY)
REPEATS = random_sequences(ORDINARY, count=5, length=LENGTH, copies=2, bos_id=0, seed=0)
ALL_PAIRS = position_pairs(2 * LENGTH + 1) | repeat_pairs(LENGTH, 1)


def ideal(kind: str, tokens: tuple[int, ...]) -> np.ndarray:
    """The pattern [queries, keys] of a head of one kind; with nothing to do it attends to itself.

    Worked out from the tokens, not from positions.
    """
    pattern = np.eye(len(tokens))
    for query, token in enumerate(tokens):
        earlier = [key for key in range(query) if tokens[key] == token]
        keys = {
            INDUCTION: [key + 1 for key in earlier],
            DUPLICATE: earlier,
            PREVIOUS: [query - 1] * (query > 0),
            SINK: [0],
        }[kind]
        if keys:
            pattern[query] = np.eye(len(tokens))[keys[0]]
    return pattern


def test_an_ideal_head_scores_one_in_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (INDUCTION, DUPLICATE, PREVIOUS, SINK)

    def ideal_at(_: Any, sequences: Any, pairs: Any) -> list[np.ndarray]:
        """A model of one layer, with a head of each kind."""
        return [
            np.stack([ideal(kind, ids)[own[:, 0], own[:, 1]] for kind in kinds], axis=1)[:, None]
            for ids, own in zip(sequences, pairs, strict=True)
        ]

    monkeypatch.setattr(scoring, "attention_at", ideal_at)
    found = attention_scores(None, REPEATS, [ALL_PAIRS] * len(REPEATS))  # type: ignore[arg-type]
    assert set(found) == set(kinds)
    for number, kind in enumerate(kinds):
        assert (found[kind][:, 0, number] == 1).all()
        # The first query has only itself to attend to, whatever the head: so does alpha_1.
        rest = np.delete(found[kind][:, 0], number, axis=1)
        assert rest.max() <= 1 / LENGTH


def test_heads_set_by_hand_are_found_by_their_scores(tmp_path: Path) -> None:
    """An induction circuit from its weights on: passes, patterns, positions and scores."""
    loaded = load_induction_circuit(tmp_path)
    ordinary = ordinary_ids(loaded.tokenizer, loaded.facts.vocab_size)
    drawn = random_sequences(
        ordinary, count=5, length=LENGTH, copies=2, bos_id=loaded.bos_id, seed=0
    )
    found = attention_scores(Engine(loaded), drawn, [ALL_PAIRS] * len(drawn))
    planted = {INDUCTION: INDUCTION_HEAD, PREVIOUS: PREVIOUS_HEAD, SINK: SINK_HEAD}
    for score, (layer, head) in planted.items():
        assert found[score][:, layer, head].min() > 0.99
        others = found[score].copy()
        # From the first query there is nothing else to attend to, and from few others little.
        others[:, layer, head] = 0
        assert others.max() < 0.4
    # The duplicate-token head divides its attention between the copy and the token itself.
    duplicate = found[DUPLICATE][:, DUPLICATE_HEAD.layer, DUPLICATE_HEAD.head]
    assert np.abs(duplicate - 0.5).max() < 0.01


@pytest.mark.parametrize("family", ["gpt2", "mistral", "neox"])
def test_scores_are_means_of_the_bridges_patterns(family: str, engines: Any, bridges: Any) -> None:
    found = attention_scores(engines[family], REPEATS, [ALL_PAIRS] * len(REPEATS))
    assert all(each.shape == (5, N_LAYERS, N_HEADS) for each in found.values())
    assert all(each.dtype == np.float32 for each in found.values())
    for row, ids in enumerate(REPEATS):
        cache = run_cached(bridges[family, False], ids)
        for layer in range(N_LAYERS):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0].double()
            expected = {
                # Diagonals below the main one, and of these the part of the second copy.
                INDUCTION: pattern.diagonal(1 - LENGTH, dim1=1, dim2=2)[:, 2:].mean(1),
                DUPLICATE: pattern.diagonal(-LENGTH, dim1=1, dim2=2)[:, 1:].mean(1),
                PREVIOUS: pattern.diagonal(-1, dim1=1, dim2=2).mean(1),
                SINK: pattern[:, :, 0].mean(1),
            }
            for name, values in expected.items():
                assert np.abs(found[name][row, layer] - values.numpy()).max() < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_one_token_repeated_leaves_no_position_to_sink_to(family: str, engines: Any) -> None:
    """Under rotary embeddings every position then has one stream, in all layers."""
    sequences = one_token_sequences(ORDINARY, count=3, length=16, seed=0)
    engine = engines[family]
    with torch.no_grad():
        model = plain(engine.loaded.model)
        streams = model(torch.tensor(sequences), output_hidden_states=True)
    for stream in streams.hidden_states[:-1]:
        assert (stream - stream[:, :1]).abs().max() < 1e-4
    found = attention_scores(engine, sequences, [position_pairs(16)] * 3)[SINK]
    # Even attention has 1/q from query q: .211 in the mean of 16.
    assert abs(found.mean() - np.mean(1 / np.arange(1, 17))) < 0.05


def test_sequences_need_the_same_scores_and_positions(engines: Any) -> None:
    pairs = [ALL_PAIRS, {SINK: ALL_PAIRS[SINK]}]
    with pytest.raises(EngineError, match="sequence 1 has other scores than the first"):
        attention_scores(engines["gpt2"], REPEATS[:2], pairs)
    none = {SINK: ALL_PAIRS[SINK][:0]}
    with pytest.raises(EngineError, match="sequence 0 has other scores .* without positions"):
        attention_scores(engines["gpt2"], REPEATS[:1], [none])


def test_words_are_looked_for_at_their_beginning_and_at_their_end() -> None:
    """BOS ab cde fg ab cde fg: from b to c and e, from e to f and g."""
    text = "_abcdefgabcdefg"
    pairs = word_pairs([2, 3, 2], 1)
    read = {name: [(text[q], text[k]) for q, k in each] for name, each in pairs.items()}
    assert read == {INDUCTION: [("b", "c"), ("e", "f")], CONCEPT: [("b", "e"), ("e", "g")]}
    for each in pairs.values():
        assert (each[:, 0] >= 8).all() and (each[:, 1] < 8).all()  # from one copy to the other
