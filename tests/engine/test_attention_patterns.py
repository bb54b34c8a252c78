"""Attention probabilities against TransformerBridge, plain Hugging Face passes and sums by hand.

Run: pytest tests/engine/test_attention_patterns.py
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts, run_cached
from tests.by_hand import plain, queries_and_keys, turned
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.engine import attention_patterns
from tinyablation.engine.attention_patterns import attention_at
from tinyablation.engine.engine import Engine
from tinyablation.engine.memory import Room
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.models.loading import load_model

# Batch shape changes the order of float32 sums.
TOLERANCE = 1e-5
LENGTHS = [9, 4, 9, 13, 1]
SEQUENCES = [prompt.ids for prompt in make_prompts(LENGTHS)]
# Every query and key of each sequence.
EVERY = [np.argwhere(np.tri(length, dtype=bool)) for length in LENGTHS]


def gathered(pattern: torch.Tensor, pairs: np.ndarray) -> np.ndarray:
    """[pairs, layers, heads] of a pattern [layers, heads, queries, keys]."""
    return pattern[:, :, pairs[:, 0], pairs[:, 1]].permute(2, 0, 1).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_are_the_bridges(family: str, engines: Any, bridges: Any) -> None:
    found = attention_at(engines[family], SEQUENCES, EVERY)
    for ids, pairs, figures in zip(SEQUENCES, EVERY, found, strict=True):
        cache = run_cached(bridges[family, False], ids)
        pattern = [cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(N_LAYERS)]
        expected = gathered(torch.stack(pattern), pairs)
        assert figures.dtype == np.float32 and figures.shape == (len(pairs), N_LAYERS, N_HEADS)
        assert np.abs(figures - expected).max() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_are_those_of_a_plain_pass_over_one_prompt(family: str, engines: Any) -> None:
    engine = engines[family]
    found = attention_at(engine, SEQUENCES, EVERY)
    for ids, pairs, figures in zip(SEQUENCES, EVERY, found, strict=True):
        with torch.no_grad():
            out = plain(engine.loaded.model)(torch.tensor([ids]), output_attentions=True)
        assert np.abs(figures - gathered(torch.cat(out.attentions), pairs)).max() < TOLERANCE
        # A head's attention from one query adds up to 1.
        sums = np.zeros((len(ids), N_LAYERS, N_HEADS))
        np.add.at(sums, pairs[:, 0], figures)
        assert np.abs(sums - 1).max() < TOLERANCE


def patterns_by_hand(model: Any, family: str, ids: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Each layer's pattern [heads, queries, keys], in float64, from the stream that enters it."""
    with torch.no_grad():
        streams = plain(model)(torch.tensor([ids]), output_hidden_states=True).hidden_states
    for layer in range(N_LAYERS):
        q, k = queries_and_keys(model, family, layer, streams[layer][0])
        if family != "gpt2":
            q, k = (turned(each, model.config.rope_parameters) for each in (q, k))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        yield scores.masked_fill(hidden, -torch.inf).softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_are_those_worked_out_by_hand(family: str, engines: Any) -> None:
    engine = engines[family]
    if family == "mistral":  # grouped queries
        assert engine.loaded.model.config.num_key_value_heads == N_HEADS // 2
    found = attention_at(engine, SEQUENCES, EVERY)
    for ids, pairs, figures in zip(SEQUENCES, EVERY, found, strict=True):
        expected = torch.stack(list(patterns_by_hand(engine.loaded.model, family, ids)))
        assert np.abs(figures - gathered(expected, pairs)).max() < TOLERANCE
    # Heads differ, and none is uniform, so that a wrong head or position would show.
    assert found[3].std(axis=2).max() > 0.1


def test_named_pairs_are_read_in_their_order_and_none_is_none(engines: Any) -> None:
    engine = engines["llama"]
    every = attention_at(engine, SEQUENCES, EVERY)
    some = [pairs[::-2] for pairs in EVERY]
    some[1] = EVERY[1][:0]
    for own, whole in zip(attention_at(engine, SEQUENCES, some), every, strict=True):
        expected = whole[::-2] if len(own) else whole[:0]
        assert own.shape == expected.shape
        assert np.abs(own - expected).max(initial=0) < TOLERANCE
    assert attention_at(engine, [], []) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounds_the_probabilities(dtype: str, engines: Any, tiny_entry: Any) -> None:
    half = Engine(load_model(tiny_entry("llama"), dtype=dtype))
    found = attention_at(half, SEQUENCES[:1], EVERY[:1])[0]
    expected = attention_at(engines["llama"], SEQUENCES[:1], EVERY[:1])[0]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 60 * torch.finfo(getattr(torch, dtype)).eps


def test_one_layers_pattern_is_in_memory_and_no_more_prompts_than_fit(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines["gpt2"]
    expected = attention_at(engine, SEQUENCES, EVERY)
    monkeypatch.setattr(attention_patterns, "RECORD_NUMBERS", 1)
    rows: list[int] = []
    read = attention_patterns._read

    def counting(engine: Engine, part: Any, pairs: Any) -> Any:
        rows.append(len(part))
        return read(engine, part, pairs)

    monkeypatch.setattr(attention_patterns, "_read", counting)
    found = attention_at(engine, SEQUENCES, EVERY)
    assert rows == [1] * len(SEQUENCES)
    for own, other in zip(found, expected, strict=True):
        assert np.abs(own - other).max() < TOLERANCE


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_batch(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines["gpt2"]
    monkeypatch.setattr(engine, "room", Room(engine.name))
    expected = attention_at(engine, SEQUENCES, EVERY)
    read = attention_patterns._read

    def small(engine: Engine, part: Any, pairs: Any) -> Any:
        if len(part) > 1:
            raise torch.OutOfMemoryError("no more")
        return read(engine, part, pairs)

    monkeypatch.setattr(attention_patterns, "_read", small)
    for own, other in zip(attention_at(engine, SEQUENCES, EVERY), expected, strict=True):
        assert np.abs(own - other).max() < TOLERANCE
    assert engine.room.halvings > 0


def test_a_model_that_returns_no_probabilities_is_refused(tiny_entry: Any) -> None:
    engine = Engine(load_model(tiny_entry("llama")))
    engine.loaded.model.set_attn_implementation("sdpa")
    with pytest.raises(EngineError, match="layer 0: its attention module does not return"):
        attention_at(engine, SEQUENCES, EVERY)


@pytest.mark.parametrize(
    ("ids", "pair", "said"),
    [
        ((0, 1, 2), (1, 2), r"sequence 0: \(1, 2\) is no query and key of its 3 tokens"),
        ((0, 1, 2), (3, 0), r"sequence 0: \(3, 0\) is no query and key"),
        ((0, 1, 2), (1, -1), r"sequence 0: \(1, -1\) is no query and key"),
        ((), (0, 0), "sequence 0 is empty"),
        ((0,) * 65, (0, 0), "sequence 0 has 65 tokens, more than the context of 64"),
        ((0, VOCABULARY), (0, 0), "sequence 0: token id 300 is outside the vocabulary of 300"),
    ],
)
def test_sequences_and_pairs_that_cannot_be_read_are_refused(
    ids: tuple[int, ...], pair: tuple[int, int], said: str, engines: Any
) -> None:
    with pytest.raises(EngineError, match=said):
        attention_at(engines["gpt2"], [ids], [np.array([pair])])
    with pytest.raises(EngineError, match="pairs has 1 entries for 0 sequences"):
        attention_at(engines["gpt2"], [], [np.array([pair])])


def test_a_sequence_beyond_the_sliding_window_is_refused(engines: Any) -> None:
    with pytest.raises(EngineError, match="sequence 0 has 33 tokens, more than the sliding window"):
        attention_at(engines["mistral"], [(0,) * 33], [np.array([(0, 0)])])
