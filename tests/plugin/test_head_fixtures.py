"""What claims read of a head: measured once, found again without the model.

Run: pytest tests/plugin/test_head_fixtures.py
"""

from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tests.small_corpora import label
from tinyablation.corpora.examples import load_corpus, load_split, write_corpus
from tinyablation.interventions.batteries import STEERING_SCALES, Sample
from tinyablation.interventions.directions import CONTROLS, OV
from tinyablation.measurement.bench import Bench
from tinyablation.plugin.head_fixtures import read_direction, read_head_vocabulary, steer

ROOT = Path(__file__).parents[2]
HEAD = (0, 0)  # the planted head of tiny-llama
CLUSTERS = 8  # of each made-up split, all of them from the discovery split of the corpus


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    corpus = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl")
    split = load_split(ROOT / "corpora" / "tiny" / "facts.split.json", corpus)
    rows = split.rows["discovery"]
    names = sorted({corpus.examples[row].cluster_id for row in rows})[: 2 * CLUSTERS]
    chosen = [corpus.examples[row] for row in rows if corpus.examples[row].cluster_id in names]
    small = type(corpus).of("facts", "tiny", chosen)
    halves = {
        half: tuple(
            row for row, example in enumerate(chosen) if example.cluster_id in names[place::2]
        )
        for place, half in enumerate(("discovery", "confirmation"))
    }
    write_corpus(folder / "tiny", small, type(split)(0, small.content_hash, halves))
    label(folder)
    (folder / "knowledge").symlink_to(ROOT / "corpora" / "knowledge")
    return folder


@pytest.fixture(scope="module")
def bench(corpora, tmp_path_factory) -> Bench:
    return bench_of("tiny-llama", tmp_path_factory.mktemp("store"), corpora)


def again(bench: Bench) -> Bench:
    return bench.like(bench.entry)


def test_head_vocabularies_are_found_again_without_the_model(bench):
    first = read_head_vocabulary(bench, "facts", HEAD, "confirmation")
    assert first.document["n_examples"] == len(bench.rows("facts", Sample("confirmation")))
    assert len(first.clusters) == CLUSTERS
    fresh = again(bench)
    second = read_head_vocabulary(fresh, "facts", HEAD, "confirmation")
    assert second.runs == first.runs and second.document == first.document
    assert second.excess(HEAD, "hedges") == first.excess(HEAD, "hedges")
    assert "model" not in fresh.__dict__
    # Another split, or another head's logits by cluster, is another reading.
    assert read_head_vocabulary(bench, "facts", HEAD, "discovery").runs != first.runs
    assert read_head_vocabulary(bench, "facts", (0, 1), "confirmation").runs != first.runs


def test_the_planted_head_writes_the_hedges_it_was_taught(bench):
    found = read_head_vocabulary(bench, "facts", HEAD, "confirmation")
    assert found.excess(HEAD, "hedges").low > 1


def test_the_direction_is_the_mean_output_on_the_discovery_split(bench):
    from tinyablation.engine.head_outputs import head_outputs

    source = read_direction(bench, HEAD)
    vector = source.tensors()["direction"]
    expected = head_outputs(bench.engine, bench.prompts("facts", "discovery"))[HEAD].numpy()
    assert vector == pytest.approx(expected)
    document = source.document()
    assert document["vector_norm"] == pytest.approx(np.linalg.norm(vector))
    assert document["n_examples"] == len(bench.rows("facts", Sample("discovery")))


def test_steering_is_measured_once_in_every_dose(bench):
    found = steer(bench, "facts", HEAD)
    labels = set(found.effects.table["intervention"])
    assert len(labels) == 1 + len(STEERING_SCALES) * (1 + len(CONTROLS))
    fresh = again(bench)
    assert steer(fresh, "facts", HEAD).runs == found.runs
    assert "model" not in fresh.__dict__
    assert HEAD[0] == found.layer


def test_the_dose_is_in_lengths_of_the_heads_output(bench):
    """Taking the head's mean output away at every position lets LD rise, as ablating it does."""
    found = steer(bench, "facts", HEAD)
    assert found.slope(OV, signed=False).estimate < 0  # eight clusters: its interval is wide
    clean = found.effects.baseline("confirmation")["logit_diff"].mean()
    assert found.levels()[found.scales.index(-1.0)].estimate > clean
