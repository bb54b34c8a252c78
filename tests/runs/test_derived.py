"""Run: pytest tests/runs/test_derived.py"""

import json
import math
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_runs import (
    N_HEADS,
    N_LAYERS,
    SHARDS,
    baseline_rows,
    compute,
    make_config,
    make_examples,
    obtain,
    rows_of,
)
from tinyablation.engine.tables import HEAD_IMPACT_COLUMNS, METRICS, join_examples
from tinyablation.runs import derived as artefacts


@pytest.fixture(scope="module")
def table():
    parts = [compute(shard) for shard in SHARDS]
    rows = pd.concat(parts).drop_duplicates(["intervention", "example"])
    return join_examples(rows, make_examples())


@pytest.fixture(scope="module")
def impact(table):
    return artefacts.head_impact(table, "run", 3)


def value(impact, metric, method="zero", layer=0, head=2, split="all"):
    chosen = impact.query(
        "metric == @metric and method == @method and layer == @layer and head == @head"
        " and split == @split"
    )
    assert len(chosen) == 1
    return chosen["value"].item()


def test_head_impact_has_one_row_per_head_method_split_and_metric(impact):
    assert tuple(impact.columns) == HEAD_IMPACT_COLUMNS
    assert len(impact) == N_LAYERS * N_HEADS * 2 * 3 * len(METRICS)
    assert not impact.duplicated([c for c in HEAD_IMPACT_COLUMNS if c != "value"]).any()
    assert list(impact["split"].unique()) == ["discovery", "confirmation", "all"]
    assert set(impact["run_id"]) == {"run"} and set(impact["seed"]) == {3}


def test_a_planted_suppressor_comes_out_on_top_with_a_positive_sign(impact):
    effects = impact.query("metric == 'logit_diff' and split == 'all' and method == 'zero'")
    top = effects.loc[effects["value"].idxmax()]
    assert (top["layer"], top["head"]) == (0, 2) and top["value"] > 0.4


def test_the_metrics_are_what_they_say(table, impact):
    clean = table[table["intervention"] == "baseline"].set_index("example")
    ablated = table[table["intervention"] == "zero:0.2"].set_index("example")
    expected = {
        "logit_diff": (ablated["logit_diff"] - clean["logit_diff"]).mean(),
        "kl_div": ablated["kl"].mean(),
        "p_drop": (clean["target_probability"] - ablated["target_probability"]).mean(),
        "acc_flip_rate": (ablated["argmax"] != clean["argmax"]).mean(),
        "rank_change": (ablated["target_rank"] - clean["target_rank"]).mean(),
    }
    for metric, figure in expected.items():
        assert value(impact, metric) == pytest.approx(figure, abs=1e-12)
    assert value(impact, "acc_flip_rate") > 0 > value(impact, "p_drop")


def test_the_whole_is_the_weighted_mean_of_its_splits(impact):
    halves = [value(impact, "logit_diff", split=name) for name in ("discovery", "confirmation")]
    assert value(impact, "logit_diff") == pytest.approx(np.mean(halves))


def test_an_identity_intervention_changes_nothing_and_flips_nothing():
    # clean argmax is right for some examples only: flips must be counted against it, not the target
    identity = rows_of("scale1.0:0.1", method="scale", heads="", layer=0, head=1)
    for name in ("logit_diff", "target_probability", "target_rank", "argmax"):
        identity[name] = baseline_rows()[name]
    rows = pd.concat([baseline_rows(), identity.sample(frac=1, random_state=0)])
    impact = artefacts.head_impact(join_examples(rows, make_examples()), "run", 0)
    assert impact["scale"].eq(1.0).all()
    assert (impact["value"] == 0).all()


def test_a_run_without_single_heads_has_an_empty_impact_table(table):
    bare = table[table["intervention"] == "baseline"]
    impact = artefacts.head_impact(bare, "run", 0)
    assert impact.empty and tuple(impact.columns) == HEAD_IMPACT_COLUMNS


def test_summary_holds_mean_interval_and_values_of_the_baseline(table):
    summary = artefacts.summarise(table, 0)
    clean = table[table["intervention"] == "baseline"]
    figure = summary["logit_diff"]
    assert figure["mean"] == pytest.approx(clean["logit_diff"].mean())
    assert figure["values"] == [figure["mean"]]
    low, high = figure["ci95"]
    assert low < figure["mean"] < high
    assert summary["accuracy"]["mean"] == (clean["logit_diff"] > 0).mean()
    assert summary["top1"]["mean"] == (clean["target_rank"] == 0).mean()
    assert (summary["n"], summary["n_clusters"]) == (12, 6)
    assert "cluster" in summary["ci95_over"]
    assert list(summary["splits"]) == ["discovery", "confirmation"]
    assert {s["n"] for s in summary["splits"].values()} == {6}
    assert set(artefacts.SUMMARY_METRICS) <= set(summary)
    json.dumps(summary, allow_nan=False)


def test_an_interval_over_identical_values_is_null_with_the_reason(table):
    figure = artefacts.summarise(table, 0)["entropy"]  # .5 everywhere in the synthetic table
    assert figure["mean"] == 0.5 and figure["ci95"] is None
    assert "no interval" in figure["note"]


def test_the_seed_moves_the_interval_and_nothing_else(table):
    first, again, other = (artefacts.summarise(table, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["logit_diff"]["mean"] == other["logit_diff"]["mean"]
    assert first["logit_diff"]["ci95"] != other["logit_diff"]["ci95"]


def test_provenance_says_with_what_from_what_and_when():
    config = make_config(bos=True)
    facts = artefacts.provenance(config)
    for field in (
        "weight_hash",
        "tokenizer_hash",
        "corpus_hash",
        "split_hash",
        "device",
        "dtype",
    ):
        assert facts[field] == getattr(config, field)
    assert {"python", "torch", "transformers", "transformer_lens", "numpy"} <= set(
        facts["versions"]
    )
    assert facts["bos"] is True and facts["bos_policy"] == "prepended to every prompt"
    assert datetime.fromisoformat(facts["finished"]).utcoffset() == timedelta(0)


def test_provenance_names_what_it_was_computed_with():
    card = {"kind": "cuda", "name": "a card"}
    found = artefacts.Circumstances((card,), {"attention": "eager"}, {"batch_halvings": 1})
    facts = artefacts.provenance(make_config(), found)
    assert facts["devices"] == [card] and facts["attention"] == "eager"
    other = {"kind": "cuda", "name": "another"}
    facts = artefacts.provenance(make_config(), found, [other, card, other])
    assert facts["devices"] == [other, card]
    assert artefacts.profile({}, [], 0, found)["batch_halvings"] == 1
    assert {"accelerate", "huggingface_hub", "safetensors", "tokenizers"} <= set(facts["versions"])
    json.dumps(facts, allow_nan=False)


def test_the_environment_is_told_by_what_is_installed(monkeypatch):
    own = artefacts.environment_fingerprint()
    assert own == artefacts.environment_fingerprint() and len(own) == 64

    def installed(*named):
        found = [
            SimpleNamespace(metadata={"Name": name}, version=version) for name, version in named
        ]
        monkeypatch.setattr("importlib.metadata.distributions", lambda: iter(found))
        return artefacts.environment_fingerprint()

    two = installed(("torch", "2.13.0"), ("Py_Arrow", "1"))
    assert two == installed(("py-arrow", "1"), ("torch", "2.13.0")) != own
    assert two != installed(("py-arrow", "1"), ("torch", "2.13.1"))


def test_profile_adds_up(tmp_path):
    profile = artefacts.profile({"baseline": 0.5, "L00": 1.25}, ["baseline"], 36)
    assert profile["seconds_total"] == 1.75 and profile["rows"] == 36
    peak = profile["peak_rss_bytes"]
    assert peak is None or 10**7 < peak < 10**12
    run = obtain(tmp_path)
    stored = json.loads((run.path / "profile.json").read_text())
    assert stored["rows"] == len(run.table())
    assert math.isclose(
        stored["seconds_total"], sum(stored["seconds_by_shard"].values()), abs_tol=1e-4
    )


def test_splits_are_in_reading_order():
    names = ["val", "confirmation", "discovery", "test", "val"]
    assert artefacts.split_names(names) == ["discovery", "confirmation", "test", "val"]
