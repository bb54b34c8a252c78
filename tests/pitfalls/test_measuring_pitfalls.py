"""P1-P4, P9, P14, P16, P20, P22: what the engine must never do. Run: pytest tests/pitfalls

tests/pitfalls/mutants.toml puts each of them back, and tests/pitfalls/test_mutations.py sees red.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from claims.suppressors import test_h6_patching as h6
from tests.benches import bench_of
from tests.bridging import make_prompts, run_hooked
from tests.conftest import FAMILIES, N_LAYERS
from tests.metamorphic.faults import next_head
from tests.synthetic_effects import make_patches
from tinyablation.analysis.findings import Findings
from tinyablation.analysis.patching import is_flat
from tinyablation.engine.engine import EngineError
from tinyablation.engine.hook_backends import Place, PlainHooks
from tinyablation.engine.logit_metrics import distribution, divergence
from tinyablation.interventions.batteries import PATCHED, Patching, one_head
from tinyablation.interventions.head_sets import Subsets
from tinyablation.interventions.interventions import (
    AblateHeads,
    PatchPath,
    PatchResidual,
    ScaleHeads,
)
from tinyablation.interventions.sites import InterventionError
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.plan import plan_run
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.records.trust import BackendCheck
from tinyablation.runs.store import RunStore
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.floors import effect_floor
from tinyablation.verdicts.listener import hear
from tinyablation.verdicts.verdicts import judge_above_floor

ROOT = Path(__file__).parents[2]
SAME = 1e-4  # logits: float32 sums in another order leave some 1e-5


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """An embedded model on its own corpora, measured into an empty store."""
    return bench_of("tiny-gpt2", tmp_path_factory.mktemp("runs"), share=0.1)


@pytest.fixture(scope="module")
def unhooked(bench):
    """LD of every measured prompt by the plain model, one prompt alone, at its own last token."""
    found = []
    for prompt in bench.encode(bench.examples("facts"), "clean"):
        logits = plain_logits(bench.model.model, prompt.ids)
        found.append(logits[prompt.target] - logits[prompt.foil])
    return np.array([float(value) for value in found])


def plain_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double()


def table_of(engine, prompts, interventions, **given):
    frame = engine.measure(prompts, interventions, **given)
    return frame.pivot(index="intervention", columns="example", values="logit_diff")


def test_p01_a_batch_is_its_prompts_alone(bench, unhooked):
    """Prompts of many lengths are each read at their own last token, never at a pad."""
    measured = Findings(bench).effects("facts", one_head((0, 0))).baseline()["logit_diff"]
    assert len({len(p.ids) for p in bench.encode(bench.examples("facts"), "clean")}) > 1
    np.testing.assert_allclose(measured, unhooked, atol=SAME)


def test_p02_the_baseline_is_the_unhooked_model(bench, unhooked):
    """Not the mean over ablated heads; and what changes nothing has a Delta of exactly 0."""
    effects = Findings(bench).effects("facts", one_head((0, 7)))  # its head does much
    np.testing.assert_allclose(effects.baseline()["logit_diff"], unhooked, atol=SAME)
    prompts = bench.encode(bench.examples("facts"), "clean")
    table = table_of(bench.engine, prompts, [ScaleHeads(((0, 7),), 1.0)])
    assert (table.loc["baseline"] == table.drop("baseline")).all(axis=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_p03_only_aligned_pairs_are_patched(family, engines):
    """Unequal lengths are refused; the last layer's whole stream gives the donor's own logits."""
    engine, prompts = engines[family], make_prompts([6, 9])
    longer = make_prompts([7, 9], seed=3)
    patch = PatchResidual(N_LAYERS - 1, positions="all")
    with pytest.raises(EngineError, match="aligned"):
        engine.measure(prompts, [patch], pairs=longer)
    pairs = make_prompts([6, 9], seed=3)
    whole = PatchResidual(0, positions="all")
    table = table_of(engine, prompts, [whole], pairs=pairs)
    for example, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True)):
        logits = plain_logits(engine.loaded.model, pair.ids)
        donors = float(logits[prompt.target] - logits[prompt.foil])
        assert table.loc[whole.label, example] == pytest.approx(donors, abs=SAME)


def test_p03_a_result_that_is_the_same_at_every_layer_is_no_evidence():
    assert is_flat([0.31, 0.31, 0.31])
    assert not is_flat([0.1, 0.4, 0.9])


def test_p03_no_pair_is_compared_with_its_mirror(tmp_path):
    """Denoising one is noising the other: of the facts, all of which have one, others are made."""
    made = bench_of("tiny-gpt2", tmp_path)
    assert made.sampling.mirrored("facts", PATCHED) == 1
    sample = Findings(made)._patched_pairs("facts")
    patched = plan_run(made, "facts", Patching("forward", sample)).measure.examples
    clean = {example.clean for example in made.corpus("facts")[0].examples}
    assert patched and not {example.corrupt for example in patched} & clean


def test_p03_a_result_that_is_the_same_at_every_layer_refutes_nothing():
    flat = make_patches({}, {}, flat=0.5)
    assert hear(h6.test_patching_is_asymmetric, flat, None).verdict.status == "blocked"


@pytest.mark.parametrize("family", FAMILIES)
def test_p04_a_path_is_only_the_direct_one(family, engines, bridges):
    """From a head straight to the logits: its write taken out of the last stream, all else kept."""
    engine, (prompt,) = engines[family], make_prompts([7])
    head, bridge = (0, 1), bridges[family, False]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([prompt.ids]), prepend_bos=False)
    written = cache["blocks.0.attn.hook_z"][0, -1, 1] @ bridge.blocks[0].attn.W_O[1]
    last = f"blocks.{N_LAYERS - 1}.hook_resid_post"

    def without(stream):
        stream[:, -1] -= written
        return stream

    logits = run_hooked(bridge, prompt.ids, {last: without})
    path, ablation = PatchPath((head,), N_LAYERS), AblateHeads((head,))
    table = table_of(engine, [prompt], [path, ablation])
    expected = float(logits[prompt.target] - logits[prompt.foil])
    assert table.loc[path.label, 0] == pytest.approx(expected, abs=SAME)
    assert abs(table.loc[path.label, 0] - table.loc[ablation.label, 0]) > 100 * SAME


def test_p09_equal_interventions_are_one_measurement(engines):
    """Restoring b of {a, b, c} is zeroing {a, c}: once in a battery, and never twice in a table."""
    trio = ((0, 0), (0, 1), (0, 2))
    (shard,) = Subsets(trio).shards(N_LAYERS, 4)[1:]
    assert len(shard.interventions) == len(set(shard.interventions)) == 7
    with pytest.raises(InterventionError, match="sorted and distinct"):
        AblateHeads(((0, 2), (0, 0)))
    twice = [AblateHeads(((0, 0), (0, 2))), AblateHeads(((0, 0), (0, 2)))]
    with pytest.raises(EngineError, match="given twice"):
        engines["gpt2"].measure(make_prompts([5]), twice)


def test_p14_figures_of_half_precision_logits_are_computed_in_float64():
    """KL of two near distributions: underflows in fp16, and is right to 1e-9 nats here."""
    torch.manual_seed(0)
    clean = torch.randn(1, 500).half()
    other = (clean.float() + 0.01 * torch.randn(1, 500)).half()
    before, after = distribution(clean), distribution(other)
    exact = [torch.log_softmax(logits.double(), -1) for logits in (clean, other)]
    expected = (exact[0].exp() * (exact[0] - exact[1])).sum()
    kl = divergence(before.probabilities(), before.entropy, after)
    assert torch.isfinite(kl).all() and kl > 0
    assert float(kl) == pytest.approx(float(expected), abs=1e-9)


def test_p14_a_figure_that_is_not_finite_is_an_error(engines, monkeypatch):
    from tinyablation.engine import chunk as module

    def broken(*given):
        found = module_figures(*given)
        return found | {"kl": found["kl"] * np.nan}

    module_figures = module.figures
    monkeypatch.setattr(module, "figures", broken)
    with pytest.raises(EngineError, match="not finite"):
        engines["gpt2"].measure(make_prompts([5]), [AblateHeads(((0, 0),))])


@pytest.mark.parametrize("family", FAMILIES)
def test_p16_four_ways_to_ablate_a_head_are_four_measurements(family, engines):
    """Zeroing alone is off the model's distribution: mean and resample are there, and differ."""
    prompts = make_prompts([6, 6, 6, 6])
    ways = [AblateHeads(((0, 1),), m) for m in ("zero", "zero_folded", "mean", "resample")]
    table = table_of(engines[family], prompts, ways, reference=prompts)
    zero, folded, mean, resample = (table.loc[way.label].to_numpy() for way in ways)
    assert np.abs(mean - zero).max() > 100 * SAME
    assert np.abs(resample - zero).max() > 100 * SAME
    assert np.abs(resample - mean).max() > 100 * SAME
    biases = family in ("gpt2", "neox")  # without them the two zeros are one
    assert (np.abs(folded - zero).max() > 100 * SAME) == biases


@pytest.mark.parametrize("family", FAMILIES)
def test_p20_an_intervention_acts_on_its_head_and_leaves_nothing_behind(family, engines, bridges):
    """The sentinel, grouped-query attention among the families; the model is as it was, bitwise."""
    engine, (prompt,) = engines[family], make_prompts([8])
    before = plain_logits(engine.loaded.model, prompt.ids)
    ablations = [AblateHeads(((1, head),)) for head in range(4)]
    table = table_of(engine, [prompt], ablations)
    for head, ablation in enumerate(ablations):

        def zeroed(z, head=head):
            z[:, :, head] = 0
            return z

        logits = run_hooked(bridges[family, False], prompt.ids, {"blocks.1.attn.hook_z": zeroed})
        expected = float(logits[prompt.target] - logits[prompt.foil])
        assert table.loc[ablation.label, 0] == pytest.approx(expected, abs=SAME)
        assert table.loc[ablation.label, 0] != table.loc["baseline", 0]
    assert torch.equal(plain_logits(engine.loaded.model, prompt.ids), before)


def test_p20_an_effect_within_the_noise_of_its_device_supports_nothing():
    effect = Estimate(0.08, 0.06, 0.10, 50, 20)
    verdict = judge_above_floor(effect, floor=effect_floor(1.0, 0.001), what="it")
    assert verdict.status == "supported"
    noisy = judge_above_floor(effect, floor=effect_floor(1.0, 0.12), what="it")
    assert noisy.status == "inconclusive"


def test_p20_what_plain_hooks_do_not_confirm_is_seen(tmp_path, monkeypatch):
    """Two other ways to hook say what the engine says, and neither what a wrong engine says."""
    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-mistral"]

    def checks(folder):
        store = RunStore(tmp_path / folder)
        made = Bench(Setup(entry=entry, corpora=ROOT / "corpora", share=0.1), store)
        document = json.loads((made.run("facts", "zero").path / "verify.json").read_text())
        assert document["backends_not_made"] == {} and document["noise_floor"] < SAME
        return [BackendCheck.model_validate(found) for found in document["backends"]]

    assert [check.agrees for check in checks("right")] == [True, True]
    next_head(monkeypatch)  # grouped queries: a neighbour that shares keys and values
    assert [check.agrees for check in checks("wrong")] == [False, False]


PROJECTIONS = ("attn.c_proj", "self_attn.o_proj", "self_attn.o_proj", "attention.dense")


@pytest.mark.parametrize(("family", "projection"), list(zip(FAMILIES, PROJECTIONS, strict=True)))
def test_p22_a_head_is_a_slice_of_what_enters_the_projection(engines, family, projection):
    """What leaves it mixes all heads: a slice of that has the width of a head, and is none."""
    engine, (prompt,) = engines[family], make_prompts([8])
    model, layer = engine.loaded.model, 1
    (module,) = (
        found for name, found in model.named_modules() if name.endswith(f"{layer}.{projection}")
    )
    d_head = engine.loaded.facts.d_model // engine.loaded.facts.n_heads
    ablations = [AblateHeads(((layer, head),)) for head in range(engine.loaded.facts.n_heads)]
    measured = table_of(engine, [prompt], ablations)[0]
    plain = PlainHooks(engine.loaded)
    for head, ablation in enumerate(ablations):
        own = slice(head * d_head, (head + 1) * d_head)

        def zeroed(values, own=own):
            values = values.clone()
            values[..., own] = 0
            return values

        def by_head(z, head=head):
            z[:, :, head] = 0
            return z

        def difference(handle, prompt=prompt):
            try:
                logits = plain_logits(model, prompt.ids)
            finally:
                handle.remove()
            return float(logits[prompt.target] - logits[prompt.foil])

        right = difference(module.register_forward_pre_hook(lambda _, args: (zeroed(args[0]),)))
        wrong = difference(module.register_forward_hook(lambda _, args, out: zeroed(out)))
        assert measured[ablation.label] == pytest.approx(right, abs=SAME)
        logits, _ = plain.run(torch.tensor([prompt.ids]), {Place("z", layer): by_head})
        hooked = float(logits[0, prompt.target] - logits[0, prompt.foil])
        assert hooked == pytest.approx(right, abs=SAME)
        assert abs(wrong - right) > 10 * SAME
