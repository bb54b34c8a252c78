"""The published protocol repeats what the study did, and nothing of it leaks into the corrected.

Run: pytest tests/measurement/test_protocols.py
"""

from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tests.synthetic_sweeps import make_sweep
from tinyablation.analysis.findings import Findings
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.protocols import (
    PUBLISHED,
    ProtocolError,
    baseline_of_heads,
    pad_right,
)
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry

ROOT = Path(__file__).parents[2]
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return bench_of("tiny-gpt2", tmp_path_factory.mktemp("runs"), protocol=PUBLISHED)


def test_prompts_are_padded_on_the_right_to_the_longest(bench):
    prompts = [Prompt((256, 5, 6), 1, 2), Prompt((256, 5, 6, 7, 8), 1, 2)]
    padded = pad_right(prompts, bench.model)
    pad = bench.model.tokenizer.pad_token_id
    assert [prompt.ids for prompt in padded] == [(256, 5, 6, pad, pad), (256, 5, 6, 7, 8)]
    assert [prompt[1:] for prompt in padded] == [prompt[1:] for prompt in prompts]


def test_a_tokenizer_without_a_pad_token_is_refused(bench):
    class Tokenizer:
        pad_token_id = eos_token_id = None

    class Loaded:
        tokenizer = Tokenizer()
        entry = REGISTRY["tiny-gpt2"]

    with pytest.raises(ProtocolError, match="neither a pad nor an EOS"):
        pad_right([Prompt((1,), 1, 2)], Loaded())


def test_the_baseline_becomes_the_mean_over_ablated_heads():
    """Pitfall P2: what the study called clean was not."""
    sweep = make_sweep({(0, 2): 1.0})
    zeroed = sweep.table[sweep.table["method"].isin(("none", "zero"))]
    changed = baseline_of_heads(zeroed)
    clean = changed[changed["intervention"] == "baseline"].set_index("example")["logit_diff"]
    means = zeroed[zeroed["head"] >= 0].groupby("example")["logit_diff"].mean()
    assert np.allclose(clean.sort_index(), means.sort_index())
    others = changed["intervention"] != "baseline"
    assert changed[others].equals(zeroed[others])
    without = zeroed[zeroed["head"] < 0]
    assert baseline_of_heads(without).equals(without)


def test_the_bench_reads_a_pad_and_folds(bench):
    """Pitfall P1: most prompts are read at a pad, and LD there is another figure."""
    prompts = bench.prompts("facts", "discovery")
    assert len({len(prompt.ids) for prompt in prompts}) == 1
    pad = bench.model.tokenizer.pad_token_id
    share = np.mean([prompt.ids[-1] == pad for prompt in prompts])
    assert 0.2 < share < 1
    corrected = Bench(Setup(entry=bench.entry, corpora=bench.setup.corpora), bench.store, threads=1)
    own = corrected.prompts("facts", "discovery")
    tables = [bench.engine.measure(these[::2], []) for these in (prompts, own)]
    padded = [prompt.ids[-1] == pad for prompt in prompts[::2]]
    moved = np.abs(tables[0]["logit_diff"] - tables[1]["logit_diff"]).to_numpy()
    assert moved[padded].min() > 0.1
    assert moved[~np.array(padded)].max() < 1e-4
    assert (bench.method, corrected.method) == ("zero_folded", "zero")


def test_protocols_have_addresses_of_their_own(bench):
    corrected = Bench(Setup(entry=bench.entry, corpora=bench.setup.corpora), bench.store)
    names = {each.config("facts", "baseline").name for each in (bench, corrected)}
    assert len(names) == 2


def test_the_published_protocol_has_no_gate(bench):
    assert bench.gate.validity("facts") is None


@pytest.mark.slow
def test_a_sweep_under_it_starts_from_the_mean_over_heads(bench):
    sweep = Findings(bench).sweep("facts")
    assert sweep.method == "zero_folded"
    assert sweep.deltas("discovery").mean(axis=1) == pytest.approx(0, abs=1e-9)
    assert set(sweep.single["intervention"]) >= {AblateHeads(((3, 7),), "zero_folded").label}
