"""Readings of OV circuits between words that follow each other.

Run: pytest tests/measurement/test_successor_readings.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tinyablation.analysis.findings import Findings
from tinyablation.cluster.serialization import describe, rebuild
from tinyablation.corpora import ordinals
from tinyablation.engine.weight_diagonals import ov_entries
from tinyablation.heads import Head
from tinyablation.measurement import successor_readings
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.successor_readings import OrdinalCircuits


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    # A corpora folder that is not there: no corpus may be looked for.
    store = tmp_path_factory.mktemp("runs")
    return bench_of("tiny-gpt2", store, store / "none")


@pytest.mark.slow
def test_all_heads_that_read_the_embedding_are_read_between_the_words(bench: Bench) -> None:
    found = Findings(bench).successors()
    assert len(found.heads) == (bench.facts.n_layers - 1) * bench.facts.n_heads
    assert min(head.layer for head in found.heads) == 1
    ids = ordinals.ordinal_ids(bench.model.tokenizer)
    assert found.document["words"] == list(ids) and "Friday" in ids
    tokens, place = np.array(list(ids.values())), found.heads.index(Head(2, 3))
    (expected,) = ov_entries(bench.engine, [Head(2, 3)], tokens, tokens, "mlp0")
    assert np.array_equal(found.tensors["written"][place], expected)
    assert 0 <= found.score(found.leaders(1)[0]).estimate <= 1
    assert Findings(bench).successors().runs == found.runs


def test_the_address_has_what_the_figures_depend_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = [OrdinalCircuits(), OrdinalCircuits("token"), OrdinalCircuits("effective")]
    names = [bench.config_without_corpus(each.name(bench)).name for each in wanted]
    assert rebuild(describe(wanted[1])) == wanted[1]
    changed = (ordinals.SEQUENCES[0]._replace(cyclic=False), *ordinals.SEQUENCES[1:])
    monkeypatch.setattr(successor_readings, "SEQUENCES", changed)
    names.append(bench.config_without_corpus(replace(wanted[0]).name(bench)).name)
    assert len(set(names)) == len(names)


def test_a_tokenizer_without_the_words_has_an_empty_reading(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(successor_readings, "ordinal_ids", lambda tokenizer: {"one": 7})
    found = OrdinalCircuits().compute(bench)
    assert found.document["words"] == ["one"] and not found.tensors
