"""Plain hooks on a sample of a run: what is chosen, what is said, and that faults do not pass.

Run: pytest tests/measurement/test_agreement.py
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.benches import bench_of
from tests.metamorphic import faults
from tests.small_corpora import put_corpora
from tinyablation.engine.clean_pass import CleanPasses
from tinyablation.engine.engine import Engine
from tinyablation.engine.hook_backends import (
    BACKENDS,
    BRIDGE,
    PLAIN,
    BackendError,
    BridgeHooks,
    PlainHooks,
)
from tinyablation.interventions.batteries import Patching, Paths, Steering, battery
from tinyablation.interventions.interventions import AblateHeads, ScaleHeads, Steer
from tinyablation.measurement.agreement import AGREEMENT, SAMPLE, agreement, backend_of, choose
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.plan import measurement_of
from tinyablation.measurement.precision import TOLERANCES
from tinyablation.measurement.protocols import PUBLISHED
from tinyablation.records.trust import BackendCheck
from tinyablation.statistics.intervals import generator

pytestmark = pytest.mark.slow  # models are measured in several ways: make slow

ROOT = Path(__file__).parents[2]


def bench(tmp_path, model="tiny-gpt2", change=lambda row: row, **options) -> Bench:
    """Over 16 facts of the embedded corpus."""
    corpora = put_corpora(tmp_path / "corpora", rows=(8, 8), change=change)
    return bench_of(model, tmp_path / "runs", corpora, **options)


def verified(made, wanted, condition="facts", **given) -> dict:
    """verify.json of a run."""
    return json.loads((made.run(condition, wanted, **given).path / "verify.json").read_text())


def checks_of(document) -> dict[str, BackendCheck]:
    found = [BackendCheck.model_validate(check) for check in document["backends"]]
    return {check.backend: check for check in found}


# --- which interventions -------------------------------------------------------------------------

HEADS = [AblateHeads(((0, n),)) for n in range(8)]
MIXED = [*HEADS, *(AblateHeads(((0, n),), "mean") for n in range(8)), Steer(0, "up", 1.0)]


def effects(large, of=MIXED):
    return {each.label: 1.0 if each == large else 0.1 for each in of}


def test_the_largest_effect_comes_first_and_every_kind_is_there():
    rng = generator(0, "test")
    for large in MIXED:
        chosen = choose(MIXED, effects(large), 4, rng)
        assert chosen[0] == large and len(set(chosen)) == 4
        assert {each.columns.method for each in chosen} == {"zero", "mean", "steer"}


def test_the_rest_are_drawn_by_the_seed():
    def labels(seed):
        chosen = choose(HEADS, effects(HEADS[3], HEADS), 4, generator(seed, "test"))
        return [each.label for each in chosen]

    assert labels(0) == labels(0)
    assert len({tuple(labels(seed)) for seed in range(8)}) > 4
    seen = {label for seed in range(30) for label in labels(seed)}
    assert seen == {each.label for each in HEADS}  # none is never looked at


def test_there_may_be_fewer_than_asked_for_and_more_kinds_than_places():
    assert choose(HEADS[:2], effects(HEADS[1], HEADS), 4, generator(0, "test")) == HEADS[1::-1]
    chosen = choose(MIXED, effects(MIXED[-1]), 2, generator(0, "test"))
    assert chosen[0] == MIXED[-1] and chosen[1].columns.method in ("zero", "mean")


# --- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["zero", "methods"])
def test_both_backends_confirm_a_run(tmp_path, wanted):
    made = bench(tmp_path)
    document = verified(made, wanted)
    assert document["backends_not_made"] == {}
    found = checks_of(document)
    assert tuple(found) == BACKENDS
    run = made.run("facts", wanted)
    table = run.table().pivot(index="intervention", columns="example", values="logit_diff")
    deltas = table - table.loc["baseline"]
    for check in found.values():
        assert check.agrees and check.largest < 1e-4 and check.run == run.name
        assert (check.n_examples, check.n_interventions) == SAMPLE
        # As a share of the largest LD of the sample, which lies between these.
        assert 1 <= check.tolerance / AGREEMENT["float32"] <= table.abs().to_numpy().max() + 1e-3
        example, label, engine = worst_of(check)
        assert engine == pytest.approx(deltas.loc[label, example], rel=1e-3)
        assert f"and plain {check.backend} say" in check.where


def worst_of(check):
    """(example, label, what the engine says) of a check's text."""
    example, rest = check.where.removeprefix("example ").split(" under ")
    label, rest = rest.split(": the engine says Delta = ")
    return int(example), label, float(rest.split(" logits")[0])


def test_patches_paths_and_doses_are_confirmed_with_the_engines_donors(tmp_path):
    made = bench(tmp_path)
    vector = torch.linspace(-1, 1, made.facts.d_model)
    steering = Steering(0, "made", ("up",))
    for wanted, given in (
        (Patching("forward"), {}),
        (Patching("reverse"), {}),
        (Paths((0, 7)), {}),
        (steering, {"directions": lambda _: {"up": vector}}),
    ):
        document = verified(made, wanted, **given)
        assert [check.agrees for check in checks_of(document).values()] == [True, True], wanted


def test_the_sample_is_drawn_by_the_seed_and_the_run(tmp_path):
    def worst(folder, **options):
        made = bench(tmp_path / folder, **options)
        return [check["where"] for check in verified(made, "zero")["backends"]]

    first = worst("a")
    assert worst("b") == first
    assert worst("c", seed=1) != first


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_let_pass_what_its_rounding_makes(tmp_path, dtype):
    document = verified(bench(tmp_path, dtype=dtype), "zero")
    for check in checks_of(document).values():
        assert check.agrees and check.largest > 1e-4  # more than float32 would be let pass
        assert check.tolerance >= AGREEMENT[dtype]


# --- faults that every other check lets pass -----------------------------------------------------


def twentieth_more(patch):
    """Every effect is 1.05 times what it is."""
    measure = Engine.measure

    def larger(self, prompts, interventions, **given):
        table = measure(self, prompts, interventions, **given)
        clean = np.tile(table["logit_diff"].to_numpy()[: len(prompts)], len(interventions) + 1)
        table["logit_diff"] = clean + 1.05 * (table["logit_diff"] - clean)
        return table

    patch.setattr(Engine, "measure", larger)


def means_twice(patch):
    """Means are twice what they are."""
    mean = CleanPasses.mean
    patch.setattr(CleanPasses, "mean", lambda *args: 2 * mean(*args))


FAULTS = {
    "an effect too large": (twentieth_more, "tiny-gpt2", "zero"),
    "the head beside": (faults.next_head, "tiny-gpt2", "zero"),
    "the head beside, grouped queries": (faults.next_head, "tiny-mistral", "methods"),
    "the first of three heads": (faults.first_head_only, "tiny-gpt2", "sets"),
    "W_O on its side": (faults.matrix_on_its_side, "tiny-neox", Paths((0, 0))),
    "donors one position off": (faults.donors_one_off, "tiny-llama", Patching("reverse")),
    "means twice as large": (means_twice, "tiny-gpt2", "methods"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_engine_is_a_disagreement_of_both(tmp_path, monkeypatch, name):
    """Each is the same in every batch and for each prompt alone, so that its noise is none."""
    fault, model, wanted = FAULTS[name]
    made = bench(tmp_path, model)
    fault(monkeypatch)
    if wanted == "sets":
        trio = [ScaleHeads(((0, 0), (0, 5), (0, 7)), 0.0), ScaleHeads(((0, 1), (0, 7)), 0.5)]
        document = by_hand(made, trio)
    else:
        document = verified(made, wanted)
        assert document["noise_floor"] < 1e-4
    found = checks_of(document)
    assert [check.agrees for check in found.values()] == [False, False]
    for name, check in found.items():
        assert check.largest > check.tolerance
        assert f"logits, and plain {name} say" in check.where
    # Both say the same against the engine.
    one, other = (worst_of(check) for check in found.values())
    assert one == other


def by_hand(made, interventions, spoil=lambda table: table):
    """What `agreement` says of these, measured by the bench's engine."""
    measured = measurement_of(made, battery("zero"), "facts", made.examples("facts"))
    table = measured.measure(interventions, list(range(len(measured.prompts))))
    return agreement(measured, interventions, spoil(table))


def test_a_fault_is_found_in_half_precision(tmp_path, monkeypatch):
    """The other head's effect is beyond what rounding may make."""
    faults.next_head(monkeypatch)
    document = verified(bench(tmp_path, dtype="float16"), "zero")
    assert [check.agrees for check in checks_of(document).values()] == [False, False]


def test_an_effect_that_the_engine_misses_is_a_disagreement(tmp_path):
    """Its rows say that nothing changes; both backends see that something does."""

    def still(table):
        clean = table["logit_diff"].to_numpy()[: len(table) // 2]
        return table.assign(logit_diff=np.tile(clean, 2))

    found = checks_of(by_hand(bench(tmp_path), [AblateHeads(((0, 7),))], still))
    assert [check.agrees for check in found.values()] == [False, False]


# --- what is not made ----------------------------------------------------------------------------


def not_made(document) -> str:
    """Why, where it is the same of both."""
    assert document["backends"] == [] and set(document["backends_not_made"]) == set(BACKENDS)
    (why,) = set(document["backends_not_made"].values())
    return why


def test_agreement_about_nothing_says_nothing(tmp_path):
    made = bench(tmp_path)
    document = by_hand(made, [ScaleHeads(((0, 7),), 1.0)])
    assert not document["backends"]
    for why in document["backends_not_made"].values():
        assert "no change of the sample is larger than" in why and "say nothing" in why


def test_unhooked_runs_and_the_published_protocol_have_none(tmp_path):
    assert "changes nothing" in not_made(verified(bench(tmp_path), "corrupt"))
    published = bench(tmp_path / "published", protocol=PUBLISHED)
    assert "the published protocol repeats" in not_made(verified(published, "folded"))


def long(target, foil):
    return lambda row: replace(row, target=target, foil=foil)


def test_of_answers_of_several_tokens_the_first_is_compared(tmp_path):
    document = verified(bench(tmp_path, change=long(" Rome itself", " Paris")), "methods")
    found = checks_of(document)
    assert [check.agrees for check in found.values()] == [True, True]
    # Donors of spans are no matter of the first token.
    assert not any("resample" in check.where for check in found.values())
    # Both fall back to bytes, of which the first is a space.
    same = verified(bench(tmp_path / "same", change=long(" Zanzibar", " Xanadu")), "zero")
    assert "no example or intervention has a first token to compare" in not_made(same)


def no_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def no_memory_of_the_machine(*_, **__):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


def unheard(*_, **__):
    raise BackendError("the bridge has no blocks.0.hook_mlp_out")


@pytest.mark.parametrize(
    ("refuse", "why"),
    [
        (no_memory, "cpu ran out of memory"),
        (no_memory_of_the_machine, "cpu ran out of memory"),
        (unheard, "the bridge has no blocks.0.hook_mlp_out"),
    ],
)
def test_a_backend_that_cannot_is_not_made_and_the_other_is(tmp_path, monkeypatch, refuse, why):
    monkeypatch.setattr(BridgeHooks, "run", refuse)
    document = verified(bench(tmp_path), "zero")
    assert document["backends_not_made"] == {BRIDGE: why}
    assert [check.agrees for check in checks_of(document).values()] == [True]


def test_any_other_error_of_a_backend_comes_out(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(PlainHooks, "run", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        bench(tmp_path).run("facts", "zero")


def test_a_model_over_several_devices_is_bridged_on_the_cpu(tmp_path):
    for dtype, expected in (("bfloat16", TOLERANCES["bfloat16"]), ("float32", None)):
        made = bench(tmp_path / dtype, dtype=dtype)
        measured = SimpleNamespace(held=made)
        backend, share = backend_of(measured, BRIDGE)
        assert backend is made.bridge_hooks and share == AGREEMENT[dtype]
        made.drop_model()
        made.model.model.hf_device_map = {"transformer.wte": 0, "transformer.h": "cpu"}
        if expected is None:  # nothing else is trusted more
            with pytest.raises(BackendError, match="spread over several devices"):
                backend_of(measured, BRIDGE)
        else:
            backend, share = backend_of(measured, BRIDGE)
            assert backend is made.reference.bridge_hooks and share == expected
        assert backend_of(measured, PLAIN) == (made.plain_hooks, AGREEMENT[dtype])
