"""What fills a run's shards: prompts, donors, positions, spans, and the check of a sample.

Run: pytest tests/test_measurement.py
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinyablation.batteries import Patching, battery
from tinyablation.corpora import Corpus, CorpusError, Split, load_corpus, load_split, write_corpus
from tinyablation.measurement import Measurement
from tinyablation.measuring import Bench
from tinyablation.protocols import PUBLISHED, ProtocolError
from tinyablation.registry import load_registry
from tinyablation.runs import RunStore
from tinyablation.tables import PER_EXAMPLE_COLUMNS

ROOT = Path(__file__).parent.parent


def few(change, tmp_path) -> Path:
    """16 facts of the embedded corpus, changed, in a folder of their own."""
    corpus = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl")
    split = load_split(ROOT / "corpora" / "tiny" / "facts.split.json", corpus)
    rows = [row for name in ("discovery", "confirmation") for row in split.rows[name][:8]]
    examples = [change(corpus.examples[row]) for row in rows]
    small = Corpus.of("facts", "tiny", examples)
    halves = {"discovery": tuple(range(8)), "confirmation": tuple(range(8, 16))}
    write_corpus(tmp_path / "corpora" / "tiny", small, Split(0, small.content_hash, halves))
    return tmp_path / "corpora"


def bench(tmp_path, change=lambda row: row, **options) -> Bench:
    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-llama"]
    return Bench(
        entry,
        corpora=few(change, tmp_path),
        store=RunStore(tmp_path / "runs"),
        threads=1,
        **options,
    )


def test_subjects_are_where_the_two_prompts_differ(tmp_path):
    made = bench(tmp_path)
    measure = Measurement(made, Patching("reverse"), "facts", made.examples("facts"))
    tokenizer = made.model.tokenizer
    for example, prompt, where in zip(
        measure.examples, measure.prompts, measure.subjects, strict=True
    ):
        words = tokenizer.decode([prompt.ids[place] for place in where]).strip()
        assert words in example.clean and words not in example.corrupt


def test_every_run_is_verified_and_its_noise_recorded(tmp_path):
    run = bench(tmp_path).run("facts", "zero")
    found = json.loads((run.path / "verify.json").read_text())
    for metric in ("logit_diff", "target_probability", "kl", "entropy"):
        assert set(found[metric]) == {"main", "verify", "abs_diff", "largest"}
        assert found[metric]["abs_diff"] <= found[metric]["largest"] + 1e-12 < 1e-4
    assert run.noise_floor() == found["noise_floor"] < 1e-4
    assert found["interventions"][0] == "baseline" and len(found["interventions"]) > 3


def test_a_defect_of_the_batched_engine_shows_in_the_noise_floor(tmp_path, monkeypatch):
    """The check is against each prompt alone: a batch that mixes rows up cannot pass it."""
    made = bench(tmp_path)
    measure = Measurement(made, battery("zero"), "facts", made.examples("facts"))
    own = made.engine.measure

    def mixed(prompts, interventions, **options):
        table = own(prompts, interventions, **options)
        if len(prompts) > 1:
            late = table["method"] != "none"
            table.loc[late, "logit_diff"] = table.loc[late, "logit_diff"].to_numpy()[::-1]
        return table

    monkeypatch.setattr(made.engine, "measure", mixed)
    assert measure.verify(battery("zero").shards(4, 8))["noise_floor"] > 0.1


def test_answers_of_several_tokens_are_measured_as_spans(tmp_path):
    def long(row):
        return replace(row, target=" Zanzibar", foil=" Xanadu")

    run = bench(tmp_path, long).run("facts", "zero")
    table = run.table()
    assert list(table.columns) == list(PER_EXAMPLE_COLUMNS)
    clean = table[table["method"] == "none"]
    # Both words fall back to bytes: the first differs, and so do the whole words.
    assert not np.allclose(clean["logit_diff"], clean["seq_logprob_diff"])
    assert (clean["seq_probability"] < clean["target_probability"]).all()
    with pytest.raises(ProtocolError, match="more than one token"):
        bench(tmp_path / "other", long, protocol=PUBLISHED).run("facts", "folded")


def test_donors_come_from_the_whole_condition_not_from_the_sample(tmp_path):
    """One example of each cluster may hold no second prompt of some length."""
    made = bench(tmp_path)
    lone = max(range(16), key=lambda n: len(made.prompts("facts")[n].ids))
    chosen = [made.examples("facts")[lone]]
    measure = Measurement(made, Patching("reverse"), "facts", chosen)
    assert len(measure.prompts) == 1 and len(measure.reference) == 16
    (shard,) = Patching("reverse").shards(4, 8)[1:]
    table = measure(shard)
    assert np.isfinite(table["logit_diff"]).all()
    methods = Measurement(made, battery("methods"), "facts", chosen)
    assert len(methods(battery("methods").shards(4, 8)[1])) == 32


def test_a_battery_without_examples_to_measure_is_refused(tmp_path):
    made = bench(tmp_path, lambda row: replace(row, aligned=False))
    with pytest.raises(CorpusError, match="no aligned pairs"):
        made.run("facts", Patching("forward"))


def test_patches_have_their_layer_impact_and_paths_theirs(tmp_path):
    made = bench(tmp_path)
    run = made.run("facts", Patching("forward"))
    impact = run.layer_impact()
    assert set(impact["granularity"]) == {"residual", "mlp"}
    assert set(impact["donor"]) == {"pair", "self", "other"}
    assert set(impact["layer"]) == {0, 1, 2, 3}
    heads = run.head_impact()
    assert len(heads[(heads["metric"] == "logit_diff") & (heads["split"] == "all")]) == 32
    sham = impact[(impact["donor"] == "self") & (impact["metric"] == "logit_diff")]
    assert sham["value"].abs().max() < 1e-4
    made.paths("facts", (0, 0))
    (path,) = (folder for folder in (tmp_path / "runs").glob("*path-0.0*"))
    assert set(made.store.open(path.name).layer_impact()["granularity"]) == {"path"}
