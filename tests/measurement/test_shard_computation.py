"""What fills a run's shards: prompts, donors, positions, spans, and the check of a sample.

Run: pytest tests/measurement/test_shard_computation.py
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tinyablation.analysis.findings import Findings
from tinyablation.corpora.examples import CorpusError
from tinyablation.engine.tables import PER_EXAMPLE_COLUMNS
from tinyablation.errors import TooLarge, Unavailable
from tinyablation.interventions.batteries import ONE_WORDING, Patching, Steering, battery
from tinyablation.measurement import plan as run_plans
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.plan import measurement_of
from tinyablation.measurement.precision import TOLERANCES
from tinyablation.measurement.protocols import PUBLISHED, ProtocolError
from tinyablation.measurement.verification import VERIFIED_METRICS
from tinyablation.runs.store import NotVerified
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.verdicts import judge_above_floor

ROOT = Path(__file__).parents[2]


def few(change, tmp_path) -> Path:
    """16 facts of the embedded corpus, changed, in a folder of their own."""
    return put_corpora(tmp_path / "corpora", rows=(8, 8), change=change)


def bench(tmp_path, change=lambda row: row, **options) -> Bench:
    return bench_of("tiny-llama", tmp_path / "runs", few(change, tmp_path), **options)


def test_subjects_are_where_the_two_prompts_differ(tmp_path):
    made = bench(tmp_path)
    measure = measurement_of(made, Patching("reverse"), "facts", made.examples("facts"))
    tokenizer = made.model.tokenizer
    for example, prompt, where in zip(
        measure.examples, measure.prompts, measure.subjects, strict=True
    ):
        words = tokenizer.decode([prompt.ids[place] for place in where]).strip()
        assert words in example.clean and words not in example.corrupt


def test_every_run_is_verified_and_its_noise_recorded(tmp_path):
    run = bench(tmp_path).run("facts", "zero")
    found = json.loads((run.path / "verify.json").read_text())
    for metric in VERIFIED_METRICS:
        assert list(found[metric]) == [
            *("main", "verify", "abs_diff", "largest", "noise", "repeat", "shape", "reference")
        ]
        assert found[metric]["noise"] == max(found[metric]["repeat"], found[metric]["shape"])
        assert found[metric]["abs_diff"] <= found[metric]["largest"] + 1e-12 < 1e-4
    assert run.noise_floor() == found["noise_floor"] == found["logit_diff"]["noise"] < 1e-4
    assert run.noise_floor().of("entropy") == found["entropy"]["noise"]
    assert found["interventions"][0] == "baseline" and len(found["interventions"]) == 5
    assert found["measured"] == found["reference"] == {"device": "cpu", "dtype": "float32"}
    assert found["verified"] == "each prompt alone, on the same device"


def test_the_sample_is_spread_over_layers_and_lengths(tmp_path):
    made = bench(tmp_path)
    found = json.loads((made.run("facts", "zero").path / "verify.json").read_text())
    assert found["interventions"][1] == "zero:0.0" and found["interventions"][-1] == "zero:3.7"
    layers = {label.split(":")[1].split(".")[0] for label in found["interventions"][1:]}
    assert layers == {"0", "1", "2", "3"}
    lengths = [len(prompt.ids) for prompt in made.prompts("facts")]
    chosen = {lengths[row] for row in found["examples"]}
    assert {min(lengths), max(lengths)} <= chosen


def test_an_unhooked_run_has_the_noise_of_its_figures(tmp_path):
    """There is no change there; the noise of one LD is what a difference of two prompts has."""
    run = bench(tmp_path, dtype="bfloat16").run("facts", "corrupt")
    found = json.loads((run.path / "verify.json").read_text())
    assert found["interventions"] == ["baseline"]
    assert run.noise_floor() == found["logit_diff"]["largest"] > 1e-3


# --- what is verified by the CPU in float32 -------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "least", "most"), [("bfloat16", 5e-3, 0.2), ("float16", 5e-4, 0.03)]
)
def test_other_dtypes_are_verified_by_the_cpu_in_float32(tmp_path, dtype, least, most):
    made = bench(tmp_path, dtype=dtype)
    run = made.run("facts", "zero")
    found = json.loads((run.path / "verify.json").read_text())
    assert found["measured"] == {"device": "cpu", "dtype": dtype}
    assert found["reference"] == {"device": "cpu", "dtype": "float32"}
    assert found["tolerance"] == TOLERANCES[dtype]
    assert found["verified"] == (
        f"measured on cpu in {dtype}; each prompt alone, on the cpu in float32"
    )
    assert len(found["examples"]) == 8 and len(found["interventions"]) == 9
    assert least < run.noise_floor() < most
    assert run.noise_floor().where == f"cpu in {dtype}"
    # The figures of the other side are those of a run in float32, to the grain of its sums.
    table = bench(tmp_path / "again").run("facts", "zero").table()
    sample = table[
        table["intervention"].isin(found["interventions"])
        & table["example"].isin(found["examples"])
    ]
    assert found["logit_diff"]["verify"] == pytest.approx(sample["logit_diff"].mean(), abs=1e-4)
    assert Findings(made).effects("facts", "zero").floor().where == f"cpu in {dtype}"


@pytest.mark.slow
def test_means_donors_and_directions_are_verified_too(tmp_path):
    """The reference makes its own means, and is given the same directions."""
    made = bench(tmp_path, dtype="float16")
    Findings(made).methods("facts")
    made.run("facts", Patching("reverse"))
    vector = torch.linspace(-1, 1, made.facts.d_model)
    steering = Steering(0, "made", ("up",))
    run = made.run("facts", steering, directions=lambda bench: {"up": vector})
    found = json.loads((run.path / "verify.json").read_text())
    assert len(found["interventions"]) > 3 and 0 < found["noise_floor"] < 0.03


def invert(table):
    table["logit_diff"] *= -1
    return table


def swapped(table):
    late = table["method"] != "none"
    table.loc[late, "kl"] = table.loc[late, "kl"].to_numpy() + 3
    return table


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "metric"), [(invert, "logit_diff"), (swapped, "kl")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_accelerator_that_computes_wrong_fails_the_run(
    tmp_path, monkeypatch, dtype, spoil, metric
):
    """P20: logits come out inverted. What is left says so, and is not used by the next attempt."""
    made = bench(tmp_path, dtype=dtype)
    own = made.engine.measure
    with monkeypatch.context() as patched:
        patched.setattr(
            made.engine, "measure", lambda *args, **options: spoil(own(*args, **options))
        )
        with pytest.raises(NotVerified) as caught:
            made.run("facts", "zero")
    said = str(caught.value)
    assert f"model 'tiny-llama', facts, battery zero: {metric} of example" in said
    assert f"on cpu in {dtype}, and" in said and "on the CPU in float32; at most" in said
    assert "--device cpu or --dtype float32" in said
    folder = made.store.path(made.config("facts", "zero", ONE_WORDING))
    assert made.store.status(made.config("facts", "zero", ONE_WORDING)) == "partial"
    assert not (folder / "metrics").exists() and not (folder / "verify.json").exists()
    assert list((folder / "shards").glob("*.parquet"))
    assert "NotVerified" in json.loads((folder / "partial_summary.json").read_text())["reason"]
    # The driver is mended: the wrong shards are computed again, and the run is what it should be.
    again = made.run("facts", "zero")
    fresh = bench(tmp_path / "fresh", dtype=dtype).run("facts", "zero")
    assert again.table().equals(fresh.table())


def test_a_wrong_shard_of_an_earlier_attempt_is_found(tmp_path, monkeypatch):
    """The run's own rows are compared, not the device's second try."""
    made = bench(tmp_path, dtype="bfloat16")
    own = made.engine.measure
    with monkeypatch.context() as patched:
        patched.setattr(
            made.engine, "measure", lambda *args, **options: invert(own(*args, **options))
        )
        patched.setattr(run_plans, "verify", stop)
        with pytest.raises(KeyboardInterrupt):
            made.run("facts", "zero")
    with pytest.raises(NotVerified):
        made.run("facts", "zero")


def stop(*_):
    raise KeyboardInterrupt


def test_a_model_that_the_cpu_cannot_hold_cannot_be_verified(tmp_path, monkeypatch):
    made = bench(tmp_path, dtype="bfloat16")
    made.engine  # noqa: B018 - loaded before the CPU is full

    def refuse(*_, **__):
        raise TooLarge("tiny-llama needs 28.0 GB of cpu, which has 16.0 GB in all")

    def measured(*_, **__):
        raise AssertionError("measured, although it cannot be verified")

    monkeypatch.setattr(made.engine, "measure", measured)
    monkeypatch.setattr("tinyablation.models.residency.load_model", refuse)
    with pytest.raises(Unavailable, match=r"again on the CPU in float32.*28\.0 GB of cpu"):
        made.run("facts", "zero")
    assert made.store.status(made.config("facts", "zero", ONE_WORDING)) == "partial"


def test_a_defect_of_the_batched_engine_shows_in_the_noise_floor(tmp_path, monkeypatch):
    """The check is against each prompt alone: a batch that mixes rows up cannot pass it."""
    made = bench(tmp_path)
    own = made.engine.measure

    def mixed(prompts, interventions, **options):
        table = own(prompts, interventions, **options)
        if len(prompts) > 1:
            late = table["method"] != "none"
            table.loc[late, "logit_diff"] = table.loc[late, "logit_diff"].to_numpy()[::-1]
        return table

    monkeypatch.setattr(made.engine, "measure", mixed)
    assert made.run("facts", "zero").noise_floor() > 0.1


def again(table, call):
    """The second time that the same is measured, it is something else."""
    return 0.4 * (call > 1)


def shaped(table, call):
    """What a row is depends on how many there are."""
    return 0.4 * (table["example"].nunique() == 1)


def coarse(table, call):
    """What this device computes is off everywhere, and the CPU in float32 is not."""
    return 0.4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "off"),
    [("repeat", None, again), ("shape", None, shaped), ("reference", "bfloat16", coarse)],
)
def test_whichever_noise_is_the_largest_decides_what_is_inconclusive(
    tmp_path, monkeypatch, kind, dtype, off
):
    made = bench(tmp_path, dtype=dtype)
    own, calls = made.engine.measure, Counter()

    def noisy(prompts, interventions, **options):
        table = own(prompts, interventions, **options)
        what = (tuple(prompts), tuple(interventions))
        calls[what] += 1
        late = table["method"] != "none"
        table.loc[late, "logit_diff"] += off(table, calls[what])
        return table

    monkeypatch.setattr(made.engine, "measure", noisy)
    run = made.run("facts", "zero")
    found = json.loads((run.path / "verify.json").read_text())["logit_diff"]
    kinds = {name: found[name] or 0.0 for name in ("repeat", "shape", "reference")}
    assert max(kinds, key=kinds.get) == kind and found["noise"] == found[kind] > 0.3
    assert sorted(kinds.values())[1] < 0.1  # and no other kind is near it
    floor = Findings(made).effects("facts", "zero").floor()
    assert run.noise_floor() == found["noise"] and float(floor) >= found["noise"]
    within, beyond = (Estimate(x, x - 0.01, x + 0.01, 16, 8) for x in (0.28, 1.5))
    refused = judge_above_floor(within, floor=floor, what="it")
    assert refused.status == "inconclusive" and "numerical noise" in refused.reason
    assert judge_above_floor(beyond, floor=floor, what="it").status == "supported"


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
    measure = measurement_of(made, Patching("reverse"), "facts", chosen)
    assert len(measure.prompts) == 1 and len(measure.reference) == 16
    (shard,) = Patching("reverse").shards(4, 8)[1:]
    table = measure(shard)
    assert np.isfinite(table["logit_diff"]).all()
    methods = measurement_of(made, battery("methods"), "facts", chosen)
    assert len(methods(battery("methods").shards(4, 8)[1])) == 32


def test_a_battery_without_examples_to_measure_is_refused(tmp_path):
    made = bench(tmp_path, lambda row: replace(row, aligned=False))
    with pytest.raises(CorpusError, match="no aligned pairs"):
        made.run("facts", Patching("forward"))


@pytest.mark.slow
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
    Findings(made).paths("facts", (0, 0))
    (path,) = (folder for folder in (tmp_path / "runs").glob("*path-0.0*"))
    assert set(made.store.open(path.name).layer_impact()["granularity"]) == {"path"}
