"""Direct effects and self-repair, on figures whose answer is known and on an embedded model.

Run: pytest tests/analysis/test_direct_effects.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tests.synthetic_sweeps import HEADS, LAYERS, make_sweep
from tinyablation.analysis.direct_effects import DirectEffects, leaders
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.findings import Findings
from tinyablation.corpora.examples import BOTH, DISCOVERY
from tinyablation.corpora.own_conditions import read_own
from tinyablation.heads import Head
from tinyablation.interventions.batteries import battery
from tinyablation.interventions.interventions import PatchPath
from tinyablation.interventions.listed import Listed
from tinyablation.measurement.head_readings import HeadContributions
from tinyablation.statistics.ratios import RatioUndefined

YEARS = Path(__file__).parents[2] / "claims/literature/conditions/greater_than.jsonl"
MOVER, RIVAL, NEGATIVE, SILENT = Head(2, 1), Head(1, 3), Head(2, 3), Head(0, 0)
WRITTEN = {MOVER: 2.0, RIVAL: 0.5, NEGATIVE: -1.0}
# Delta LD of zeroing: of the first two thirds are made up for, of the negative one half.
TOTAL = {MOVER: -2.0 / 3, RIVAL: -0.5 / 3, NEGATIVE: 0.5}
NORM = 0.8  # of every direct effect is left when the norm is recomputed


def made(spread: float = 0.1) -> DirectEffects:
    sweep = make_sweep(TOTAL, spread=spread)
    clusters = np.unique(sweep.clusters(BOTH), return_inverse=True)[1]
    rng = np.random.default_rng(1)
    shape = (len(clusters), LAYERS, HEADS)
    written = spread * rng.normal(size=(clusters.max() + 1, *shape[1:]))[clusters]
    for head, mean in WRITTEN.items():
        written[:, head[0], head[1]] += mean
    noise = 0.02 * rng.normal(size=shape)
    return DirectEffects(sweep, written, NORM * written + noise, ("made-up-reading",))


@pytest.fixture(scope="module")
def effects() -> DirectEffects:
    return made()


def test_a_contribution_is_minus_the_direct_effect_of_zeroing(effects):
    assert len(effects.heads) == LAYERS * HEADS
    for head, mean in WRITTEN.items():
        found = effects.mean(head)
        assert found.low < mean < found.high and found.n_clusters == 12
        assert (effects.direct(head) == -effects.contribution(head)).all()
        assert effects.total(head).mean() == pytest.approx(TOTAL[head], abs=0.1)
        assert np.sign(effects.total(head).mean()) == np.sign(effects.direct(head).mean())
    assert effects.mean(SILENT).low < 0 < effects.mean(SILENT).high
    assert effects.runs == ("made-up-run", "made-up-reading")


def test_heads_are_chosen_on_discovery(effects):
    assert effects.chosen(2) == (MOVER, RIVAL)
    assert effects.chosen(1, sign=-1) == (NEGATIVE,)
    other = effects.contributions.copy()
    split = (effects.sweep.baseline()["split"] == DISCOVERY).to_numpy()
    other[split, SILENT[0], SILENT[1]] += 9.0
    moved = replace(effects, contributions=other)
    assert moved.chosen(1) == (SILENT,)
    assert moved.means("confirmation")[SILENT] == effects.means("confirmation")[SILENT]
    assert moved.mean(SILENT) == effects.mean(SILENT)


def test_the_leaders_are_the_chosen_of_either_sign(effects):
    splits = effects.sweep.baseline(BOTH)["split"].tolist()
    assert leaders(effects.contributions, splits) == (MOVER, NEGATIVE)
    assert leaders(np.zeros((2, 1, 1)), [DISCOVERY, "confirmation"]) == (Head(0, 0),)


def test_the_least_lead_is_over_the_nearest_rival(effects):
    lead, least = effects.least_lead([MOVER])
    assert (lead.head, lead.over) == (MOVER, RIVAL) and lead.estimate.low > 0
    assert least == pytest.approx(1.5, abs=0.1) == lead.estimate.estimate
    # A named head that writes nothing leads nobody: its lead decides.
    lead, least = effects.least_lead([MOVER, SILENT])
    assert lead[:2] == (SILENT, RIVAL) and lead.estimate.high < 0
    for named in ((), effects.heads):
        with pytest.raises(EffectsError, match="cannot lead"):
            effects.least_lead(named)


@pytest.mark.parametrize(("head", "share"), [(MOVER, 2 / 3), (RIVAL, 2 / 3), (NEGATIVE, 0.5)])
def test_repair_is_what_is_not_felt_whatever_the_heads_sign(effects, head, share):
    found = effects.repair(head)
    assert found.low < share < found.high
    assert found.high - found.low < (0.2 if head == MOVER else 0.7)
    norm = effects.norm_repair(head)
    assert norm.low < 1 - NORM < norm.high and norm.high - norm.low < 0.1


def test_what_writes_nothing_has_no_share_to_be_repaired(effects):
    with pytest.raises(RatioUndefined, match="no effect to take a share of"):
        effects.repair(SILENT)
    loud = replace(effects, sweep=replace(effects.sweep, noise_floor=3.0))
    with pytest.raises(RatioUndefined, match="numerical noise"):
        loud.norm_repair(MOVER)


def test_figures_of_other_examples_are_refused(effects):
    with pytest.raises(EffectsError, match="measure both on the same"):
        replace(effects, contributions=effects.contributions[1:])
    with pytest.raises(EffectsError, match="has no head 9:0"):
        effects.mean(Head(9, 0))


@pytest.mark.slow
def test_a_models_figures_are_paired_with_its_sweep(tmp_path):
    """The last layer of a parallel block: nothing but the norm comes after its heads."""
    bench = bench_of("tiny-neox", tmp_path / "store", put_corpora(tmp_path))
    findings = Findings(bench)
    found = findings.direct_effects("facts")
    assert findings.direct_effects("facts") is found
    (name,) = found.readings
    assert name.startswith("tiny-neox-direct-effects-v1-facts_")
    last, sweep = bench.facts.n_layers - 1, findings.sweep("facts")
    for head in (Head(last, 0), Head(last, 1)):
        total = sweep.changes(head, BOTH)
        assert found.renormed(head, BOTH) == pytest.approx(total, abs=1e-4)
        assert np.abs(total).max() > 1e-3
    zeroed = found.chosen(1) + found.chosen(1, sign=-1)
    assert found.sweep.heads == tuple(sorted(zeroed)) and len(zeroed) == 2
    for head in zeroed:
        assert found.total(head, BOTH) == pytest.approx(sweep.changes(head, BOTH), abs=1e-4)
    with pytest.raises(EffectsError, match="were zero-ablated, not L"):
        found.total(next(head for head in found.heads if head not in zeroed))
    first = Head(0, 2)
    path = PatchPath((first,), bench.facts.n_layers)
    sample = found.sweep.baseline()
    paths = findings.effects("facts", Listed("paths", (path,)))
    assert paths.baseline()["clean"].equals(sample["clean"])
    assert found.renormed(first, BOTH) == pytest.approx(paths.change(path.label, BOTH), abs=1e-4)


@pytest.mark.slow
def test_of_answers_of_several_tokens_the_first_are_meant(tmp_path):
    """As in the tables of a sweep, with which they are paired."""
    own = {"greater_than": read_own("greater_than", YEARS)}
    bench = bench_of("tiny-gpt2", tmp_path, own=own)
    found = bench.reading("greater_than", HeadContributions()).tensors()
    parts = found["heads"].sum(axis=(1, 2)) + found["mlps"].sum(axis=1)
    table = bench.run(
        "greater_than", replace(battery("baseline"), sample=HeadContributions().sample)
    )
    clean = table.table().sort_values("example")["logit_diff"]
    assert parts + found["embedding"] + found["biases"] == pytest.approx(clean, abs=1e-4)
