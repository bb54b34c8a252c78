"""Readings of weight diagonals: what they compute, and what their address depends on.

Run: pytest tests/measurement/test_diagonal_readings.py
"""

from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tinyablation.analysis.findings import Findings
from tinyablation.cluster.serialization import describe, rebuild
from tinyablation.engine.weight_diagonals import ov_diagonals, qk_diagonals
from tinyablation.heads import Head
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.diagonal_readings import WeightDiagonals

NAMED = (Head(2, 7), Head(1, 0))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    # A corpora folder that is not there: no corpus may be looked for.
    store = tmp_path_factory.mktemp("runs")
    return bench_of("tiny-gpt2", store, store / "none")


def test_named_heads_are_read_over_the_whole_vocabulary(bench: Bench) -> None:
    found = bench.reading_without_corpus(WeightDiagonals(NAMED))
    tensors, size = found.tensors(), bench.facts.vocab_size
    assert np.array_equal(tensors["tokens"], np.arange(size))
    ov = ov_diagonals(bench.engine, NAMED, tensors["tokens"], "mlp0")
    qk = qk_diagonals(bench.engine, NAMED, tensors["tokens"], "mlp0", "unembedding")
    expected = {"ov.above": ov.above, "ov.below": ov.below}
    expected |= {"qk.above": qk.above, "qk.below": qk.below}
    for name, values in expected.items():
        assert tensors[name].dtype == np.int32 and np.array_equal(tensors[name], values)
    made = Findings(bench).diagonals(WeightDiagonals(NAMED))
    assert made.heads == NAMED and made.runs == (found.name,)
    share = made.share(NAMED[0], "ov", "bottom", 10)
    assert share.estimate == (ov.below[0] < 10).mean() and share.n == size


@pytest.mark.slow
def test_all_heads_that_read_the_embedding_are_read_over_some_tokens(bench: Bench) -> None:
    shape = (bench.facts.n_layers, bench.facts.n_heads)
    every = tuple(Head(layer, head) for layer in range(shape[0]) for head in range(shape[1]))
    for wanted in (WeightDiagonals(n_tokens=40), WeightDiagonals(n_tokens=40, embedding="token")):
        found = Findings(bench).diagonals(wanted)
        assert found.heads == tuple(
            head for head in every if head.layer or wanted.embedding == "token"
        )
        tokens = found.tensors["tokens"]
        assert len(set(tokens.tolist())) == 40 and tokens.max() > bench.facts.vocab_size // 2
        assert found.tensors["qk.below"].shape == (len(found.heads), 40)
    # The rows of the whole vocabulary.
    whole = Findings(bench).diagonals(WeightDiagonals(NAMED)).tensors["ov.above"]
    sampled = Findings(bench).diagonals(WeightDiagonals(n_tokens=40))
    row = sampled.tensors["ov.above"][sampled.heads.index(NAMED[0])]
    assert np.abs(row - whole[0, sampled.tensors["tokens"]]).max() <= 1


def test_a_vocabulary_with_fewer_tokens_than_are_drawn_is_read_whole(bench: Bench) -> None:
    size = bench.facts.vocab_size
    found = Findings(bench).diagonals(WeightDiagonals(NAMED, n_tokens=size + 1))
    assert np.array_equal(found.tensors["tokens"], np.arange(size))
    share = found.share(NAMED[0], "ov", "bottom", 10)
    assert share.n == size and share.low == pytest.approx(share.high)


def test_the_address_has_what_the_figures_depend_on(bench: Bench, tmp_path: Path) -> None:
    many = tuple(Head(1, head) for head in range(4))
    wanted = [
        WeightDiagonals(),
        WeightDiagonals(NAMED),
        WeightDiagonals(NAMED[::-1]),
        WeightDiagonals((Head(10, 10), Head(11, 11), Head(12, 12))),
        WeightDiagonals((Head(10, 10), Head(11, 11), Head(12, 13))),
        WeightDiagonals(many),
        WeightDiagonals(many[::-1]),
        WeightDiagonals(n_tokens=40),
        WeightDiagonals(n_tokens=41),
        WeightDiagonals(embedding="token"),
        WeightDiagonals(embedding="effective"),
        WeightDiagonals(query="embedding"),
    ]
    names = [bench.config_without_corpus(each.name(bench)).name for each in wanted]
    assert len(set(names)) == len(names)
    assert names[1].startswith("tiny-gpt2-diagonals-mlp0-unembedding-2.7_1.0-whole-v1-no-corpus_")
    other = bench_of("tiny-gpt2", tmp_path, tmp_path, seed=1)
    assert other.config_without_corpus(wanted[7].name(other)).name != names[7]
    # What arrives at a worker has plain tuples for heads, and the same address.
    arrived = rebuild(describe(wanted[1]))
    assert arrived == wanted[1] and arrived.name(bench) == wanted[1].name(bench)
    assert arrived.compute(bench).document["heads"][0] == {"layer": 2, "head": 7}
