"""Step norms kept as a reading: the same figures as measured, and read without torch.

Run: pytest tests/analysis/test_step_norms.py
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tinyablation.analysis.step_norms import ALL_STEPS, EARLY_STEPS, stepnorms
from tinyablation.engine.residual_steps import measure_geometry
from tinyablation.interventions.batteries import BatteryError
from tinyablation.interventions.head_sets import HeadSets
from tinyablation.measurement.bench import Bench

ROOT = Path(__file__).parents[2]
TRIO = ((0, 7), (0, 0), (0, 5))
SAMPLE = HeadSets(0, TRIO, 8).sample  # the examples that coalitions are measured on
WARM = """
import sys
from pathlib import Path
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.runs.store import RunStore
from tinyablation.analysis.step_norms import stepnorms

root, store = map(Path, sys.argv[1:])
entry = load_registry(root / "fixtures" / "models.toml")["tiny-gpt2"]
bench = Bench(Setup(entry=entry, corpora=root / "corpora", share=0.2), RunStore(store))
found = stepnorms(bench, "facts", ((0, 0), (0, 5), (0, 7)))
print(found.effect(((0, 0), (0, 5), (0, 7)), column="step_norm_early").estimate)
print("torch" in sys.modules)
"""


def bench(store: Path) -> Bench:
    return bench_of("tiny-gpt2", store, share=0.2)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    made = bench(store)
    return made, stepnorms(made, "facts", TRIO), store


def test_every_triple_of_the_layer_is_there_on_the_confirmation_split(measured):
    made, found, _ = measured
    assert len(found.of_size(3)) == 56 and len(found.sets) == 56
    assert set(found.table["split"]) == {"confirmation"}
    rows = made.rows("facts", SAMPLE)
    assert len(found.baseline("confirmation")) == len(rows)
    assert found.runs[0].startswith("tiny-gpt2-geometry-0.0_0.5_0.7-facts_")


def test_figures_are_those_of_the_geometry(measured):
    made, found, _ = measured
    corpus, _ = made.corpus("facts")
    rows = made.rows("facts", SAMPLE)
    prompts = made.encode([corpus.examples[row] for row in rows], "clean")
    own = tuple(sorted(TRIO))
    table = measure_geometry(made.engine, prompts, [own], 0).table
    for column in (EARLY_STEPS, ALL_STEPS):
        clean, ablated = (table[table["heads"] == name] for name in ("", "0.0+0.5+0.7"))
        expected = ablated[column].to_numpy() - clean[column].to_numpy()
        np.testing.assert_allclose(found.deltas(TRIO, column=column), expected, atol=1e-5)
    assert found.effect(TRIO, column=EARLY_STEPS).estimate == pytest.approx(
        found.mean(TRIO, column=EARLY_STEPS)
    )


def test_the_floor_is_a_share_of_the_clean_figure(measured):
    _, found, _ = measured
    clean = found.baseline("confirmation")[EARLY_STEPS].mean()
    assert found.floor(column=EARLY_STEPS, share=0.1) == pytest.approx(0.1 * clean)


def test_the_spread_says_how_many_it_is_of(measured):
    made, found, _ = measured
    assert found.spread["dimensions"] == made.facts.d_model
    assert found.spread["examples"] == len(found.baseline("confirmation"))
    estimate, low, high = found.spread["difference"]
    assert low < estimate < high
    assert estimate == pytest.approx(found.spread["ablated"] - found.spread["clean"])


def test_the_trio_in_any_order_is_one_reading(measured, monkeypatch):
    _, found, store = measured
    monkeypatch.setattr("tinyablation.models.loading.load_model", None)
    again = stepnorms(bench(store), "facts", TRIO[::-1])
    assert again.runs == found.runs
    assert again.table.equals(found.table)


def test_a_kept_reading_is_read_without_torch(measured):
    _, found, store = measured
    done = subprocess.run(
        [sys.executable, "-c", WARM, str(ROOT), str(store)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    estimate, torch = done.stdout.split()
    assert float(estimate) == found.effect(TRIO, column=EARLY_STEPS).estimate
    assert torch == "False"


def test_a_trio_of_two_layers_is_refused(tmp_path):
    with pytest.raises(BatteryError, match="not within"):
        stepnorms(bench(tmp_path), "facts", ((0, 1), (1, 0), (0, 2)))
