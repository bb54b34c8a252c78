"""Patching, paths and steering against one-prompt-alone TransformerBridge hooks; shams; refusals.

Run: pytest tests/engine/test_engine_patching.py
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts, run_cached, run_hooked
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine import clean_pass as clean
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.models.loading import load_model

# fp32 sums in another order, in logits of some units: 7e-6 at worst here; 1e-4 is promised.
ORACLE_TOLERANCE = 2e-5
# The same row in a batch of another shape.
BATCH_TOLERANCE = 1e-5
# A patch of a prompt into itself: the same sums in another order.
SHAM_TOLERANCE = 1e-5

LENGTHS = [6, 9, 6, 4, 9, 11]
PROMPTS = make_prompts(LENGTHS)
PAIRS = make_prompts(LENGTHS, seed=2)
SUBJECTS: list[tuple[int, ...]] = [(2,), (1, 2, 5), (5,), (0, 1), (3, 4), (8, 10)]
# The same prompt with another donor, with another subject, and wholly as before.
PROMPTS += [PROMPTS[0], PROMPTS[1], PROMPTS[2]]
PAIRS += [PAIRS[2], PAIRS[1], PAIRS[2]]
SUBJECTS += [(2,), (4,), (5,)]
REFERENCE = make_prompts([6, 9, 13, 4], seed=1)
CLUSTERS = ["a", "b", "c", "d", "e", "f", "a", "b", "c"]
DIRECTIONS = {
    name: torch.randn(32, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate(("truth", "noise"))
}
GIVEN: dict[str, Any] = {
    "reference": REFERENCE,
    "pairs": PAIRS,
    "subjects": SUBJECTS,
    "directions": DIRECTIONS,
}

RESIDUAL: list[Intervention] = [
    PatchResidual(layer, window, positions)
    for layer in range(N_LAYERS)
    for window in (0, 1)
    for positions in ("all", "last", "subject")
]
MLPS: list[Intervention] = [
    PatchMLP(layer, window, positions)
    for layer in range(N_LAYERS)
    for window in (0, 1)
    for positions in ("all", "last", "subject")
]
HEADS: list[Intervention] = [
    PatchHeads(heads, positions)
    for heads in (
        ((0, 1),),
        ((1, 3),),
        ((2, 0),),
        ((1, 0), (1, 2)),
        ((0, 1), (1, 2), (2, 3)),
    )
    for positions in ("all", "last", "subject")
]
PATHS: list[Intervention] = [
    PatchPath(heads, layer, method)  # type: ignore[arg-type]
    for heads in (((0, 1),), ((0, 0), (0, 3)), ((1, 2),), ((2, 1),))
    for layer in range(heads[0][0] + 1, N_LAYERS + 1)
    for method in ("zero", "zero_folded", "mean")
]
STEERS: list[Intervention] = [
    Steer(layer, name, scale)
    for layer in range(N_LAYERS)
    for name, scale in (("truth", 0.5), ("noise", -2.0))
]
KINDS = {
    "residual": RESIDUAL,
    "mlp": MLPS,
    "heads": HEADS,
    "path": PATHS,
    "steer": STEERS,
}
# Among the rest in one call, so that batches are mixed.
ABLATIONS: list[Intervention] = [
    AblateHeads(((0, 1),)),
    AblateHeads(((1, 2), (2, 1)), "mean"),
    AblateHeads(((1, 0),), "resample"),
    ScaleHeads(((2, 3),), -0.5),
]
LENDERS = {"pair": PAIRS, "self": PROMPTS}


class Alone:
    """A bridge, and what it says of one example under one intervention."""

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.caches: dict[tuple[int, ...], Any] = {}
        z = [self.cache(prompt.ids) for prompt in REFERENCE]
        self.means = [
            torch.cat([of[f"blocks.{layer}.attn.hook_z"][0, 1:] for of in z]).mean(dim=0)
            for layer in range(N_LAYERS)
        ]

    def cache(self, ids: tuple[int, ...]) -> Any:
        if ids not in self.caches:
            self.caches[ids] = run_cached(self.bridge, ids)
        return self.caches[ids]

    def logits(self, intervention: Any, example: int) -> torch.Tensor:
        ids = PROMPTS[example].ids
        if isinstance(intervention, Steer):
            push = intervention.scale * DIRECTIONS[intervention.direction]
            name = f"blocks.{intervention.layer}.hook_attn_out"
            return run_hooked(self.bridge, ids, {name: lambda value: value + push})
        if isinstance(intervention, PatchPath):
            name = f"blocks.{intervention.layer}.hook_resid_pre"
            if intervention.layer == N_LAYERS:
                name = f"blocks.{N_LAYERS - 1}.hook_resid_post"
            stream = self.cache(ids)[name] + self.sent(intervention, ids)
            return run_hooked(self.bridge, ids, {name: lambda value: stream})
        lent = self.cache(LENDERS[intervention.donor][example].ids)
        places = {"all": range(len(ids)), "last": [-1], "subject": SUBJECTS[example]}
        here = list(places[intervention.positions])
        if isinstance(intervention, PatchHeads):
            heads = intervention.heads
            names = {f"blocks.{layer}.attn.hook_z": layer for layer, _ in heads}
        else:
            kind = "resid_pre" if isinstance(intervention, PatchResidual) else "mlp_out"
            around = range(-intervention.window, intervention.window + 1)
            layers = {intervention.layer + off for off in around} & set(range(N_LAYERS))
            names = {f"blocks.{layer}.hook_{kind}": layer for layer in layers}

        def change_of(name: str, layer: int) -> Any:
            def change(value: torch.Tensor) -> torch.Tensor:
                if isinstance(intervention, PatchHeads):
                    for own in [head for at, head in heads if at == layer]:
                        value[0, here, own] = lent[name][0, here, own]
                else:
                    value[0, here] = lent[name][0, here]
                return value

            return change

        return run_hooked(
            self.bridge, ids, {name: change_of(name, layer) for name, layer in names.items()}
        )

    def sent(self, intervention: PatchPath, ids: tuple[int, ...]) -> torch.Tensor:
        """sum_h (z'_h - z_h) W_O[h], with the bridge's own matrices."""
        layer = intervention.heads[0][0]
        block = self.bridge.blocks[layer]
        z = self.cache(ids)[f"blocks.{layer}.attn.hook_z"]
        total = torch.zeros(1, len(ids), 32)
        for _, head in intervention.heads:
            if intervention.method == "mean":
                becomes = self.means[layer][head]
            elif intervention.method == "zero" or block.attn.b_V is None:
                becomes = torch.zeros_like(z[0, 0, head])
            else:
                becomes = block.attn.b_V.reshape(N_HEADS, -1)[head]
                becomes = becomes + block.ln1.bias @ block.attn.W_V[head]
            total = total + (becomes - z[:, :, head]) @ block.attn.W_O[head]
        return total.detach()


@pytest.fixture(scope="module")
def alone(bridges: Any) -> dict[str, Alone]:
    return {family: Alone(bridges[family, False]) for family in FAMILIES}


@pytest.fixture(scope="module")
def measured(engines: Any) -> dict[str, Any]:
    """Everything in one call by family, indexed by (intervention, example)."""
    everything = [*ABLATIONS, *(i for kind in KINDS.values() for i in kind)]
    return {
        family: engine.measure(PROMPTS, everything, **GIVEN).set_index(["intervention", "example"])
        for family, engine in engines.items()
    }


# Every kind on one family, and every family on one kind; the others, a second each, are slow.
ORACLES = [
    pytest.param(
        family, kind, marks=[] if family == "gpt2" or kind == "heads" else pytest.mark.slow
    )
    for family in FAMILIES
    for kind in KINDS
]


@pytest.mark.parametrize(("family", "kind"), ORACLES)
def test_rows_are_the_bridge_with_its_activations_changed(
    family: str, kind: str, measured: Any, alone: Any
) -> None:
    rows = measured[family]
    moved = 0.0
    for intervention in KINDS[kind]:
        for example, prompt in enumerate(PROMPTS):
            logits = alone[family].logits(intervention, example)
            row = rows.loc[(intervention.label, example)]
            where = f"{intervention.label}, example {example}"
            expected = (logits[prompt.target] - logits[prompt.foil]).item()
            assert row.logit_diff == pytest.approx(expected, abs=ORACLE_TOLERANCE), where
            assert row.target_logit == pytest.approx(
                logits[prompt.target].item(), abs=ORACLE_TOLERANCE
            )
            assert row["argmax"] == logits.argmax().item()
            own = alone[family].cache(prompt.ids)["unembed.hook_out"][0, -1].double()
            kl = torch.nn.functional.kl_div(
                logits.log_softmax(-1), own.log_softmax(-1), reduction="sum", log_target=True
            )
            assert row.kl == pytest.approx(kl.item(), abs=ORACLE_TOLERANCE)
            moved = max(moved, abs(row.logit_diff - rows.loc[("baseline", example)].logit_diff))
    # The sentinel: hooks that silently do nothing would agree with each other.
    assert moved > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_ablations_are_the_same_among_patches(family: str, measured: Any, engines: Any) -> None:
    apart = engines[family].measure(PROMPTS, ABLATIONS, reference=REFERENCE)
    apart = apart.set_index(["intervention", "example"])
    for intervention in ABLATIONS:
        together = measured[family].loc[intervention.label].logit_diff
        assert np.abs(together - apart.loc[intervention.label].logit_diff).max() < BATCH_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_all_positions_at_any_layer_give_the_donors_logits(
    family: str, measured: Any, engines: Any
) -> None:
    # The donor's own figures, for the answers of the prompt that it lends to.
    asked = [
        pair._replace(target=p.target, foil=p.foil) for pair, p in zip(PAIRS, PROMPTS, strict=True)
    ]
    donors = engines[family].measure(asked, []).logit_diff.to_numpy()
    baseline = measured[family].loc["baseline"].logit_diff.to_numpy()
    assert np.abs(donors - baseline).min() > 1e-3
    for layer in range(N_LAYERS):
        patched = measured[family].loc[PatchResidual(layer, 0, "all").label].logit_diff.to_numpy()
        assert np.abs(patched - donors).max() < BATCH_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patch_of_a_prompt_into_itself_does_nothing(family: str, engines: Any) -> None:
    """The sham: it goes the whole way through the machinery, and only rounding is left."""
    shams = [
        replace(intervention, donor="self")  # type: ignore[call-arg]
        for intervention in (*RESIDUAL, *MLPS, *HEADS)
    ]
    engine = engines[family]
    frame = engine.measure(PROMPTS, shams, subjects=SUBJECTS)
    by = frame.pivot(index="example", columns="intervention", values="logit_diff")
    deltas = by.sub(by["baseline"], axis=0).drop(columns="baseline")
    assert deltas.abs().max().max() < SHAM_TOLERANCE
    assert frame.kl.max() < SHAM_TOLERANCE
    # Not short-cut to the baseline: that would show nothing.
    assert all(engine._canonical(sham, {}) is not None for sham in shams)


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_are_what_they_are_said_to_equal(
    family: str, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every equality the engine uses, with both sides really run."""
    everything = [*RESIDUAL, *MLPS, *HEADS]
    everything += [PatchMLP(1, 2), PatchMLP(0, 5, "subject"), PatchResidual(0, 2, "subject")]
    engine = engines[family]
    plain = {i.label: engine._canonical(i, {}) for i in everything}
    simpler = {label: i for label, i in plain.items() if i is not None and i.label != label}
    # 9 residual windows at "last" and "all", less those of one layer, and so on: not vacuous.
    assert len(simpler) > 12
    known = {i.label for i in everything}
    everything += list({i.label: i for i in simpler.values() if i.label not in known}.values())
    monkeypatch.setattr(Engine, "_canonical", lambda self, intervention, _: intervention)
    frame = engine.measure(PROMPTS, everything, pairs=PAIRS, subjects=SUBJECTS)
    by = frame.pivot(index="example", columns="intervention", values="logit_diff")
    for label, other in simpler.items():
        assert (by[label] - by[other.label]).abs().max() < BATCH_TOLERANCE, label
    # A subject's stream is read by the tokens after it, so there the window counts.
    window, top = (PatchResidual(1, w, "subject").label for w in (1, 0))
    assert (by[window] - by[PatchResidual(2, 0, "subject").label]).abs().max() > 1e-3
    assert (by[window] - by[top]).abs().max() > 1e-3


def test_what_is_equal_is_measured_once(engines: Any, computed_rows: list[int]) -> None:
    same: list[Intervention] = [
        PatchResidual(1, 1),
        PatchResidual(2, 0),
        PatchResidual(2, 2),
        PatchResidual(0, 9),
    ]
    frame = engines["gpt2"].measure(PROMPTS, same, pairs=PAIRS)
    # Nine examples, two of which repeat a prompt with its donor; positions "last" ask no subject.
    assert sum(computed_rows) == 7
    assert frame.groupby("example").logit_diff.nunique().max() == 2  # baseline, and one other
    computed_rows.clear()
    engines["gpt2"].measure(PROMPTS, [Steer(1, "truth", 0.0)], directions=DIRECTIONS)
    assert not computed_rows
    paths: list[Intervention] = [PatchPath(((0, 1),), 2), PatchPath(((0, 1),), 2, "zero_folded")]
    engines["llama"].measure(PROMPTS, paths)
    assert sum(computed_rows) == 6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens_a_batch", [1, 30, 10**6])
def test_a_batch_is_its_single_prompts(
    family: str, tokens_a_batch: int, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1 and P3: lengths, neighbours, order and batch size do not matter."""
    some = [*RESIDUAL[::5], *MLPS[1::5], *HEADS[::4], *PATHS[::7], *STEERS[::4], *ABLATIONS[:2]]
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    bounds = engines[family].bounds._replace(batch=tokens_a_batch * 32)
    monkeypatch.setattr(engines[family], "bounds", bounds)
    monkeypatch.setattr(clean, "RECORD_NUMBERS", tokens_a_batch * 500)
    together = engines[family].measure(
        [PROMPTS[i] for i in order],
        some[::-1],
        reference=REFERENCE,
        pairs=[PAIRS[i] for i in order],
        subjects=[SUBJECTS[i] for i in order],
        directions=DIRECTIONS,
    )
    monkeypatch.undo()
    together["example"] = order[together["example"]]
    together = together.set_index(["intervention", "example"])
    numbers = ["logit_diff", "target_logit", "target_probability", "kl", "entropy"]
    for example in range(len(PROMPTS)):
        alone = engines[family].measure(
            [PROMPTS[example]],
            some,
            reference=REFERENCE,
            pairs=[PAIRS[example]],
            subjects=[SUBJECTS[example]],
            directions=DIRECTIONS,
        )
        rows = together.xs(example, level="example").loc[alone.intervention]
        np.testing.assert_allclose(
            rows[numbers].to_numpy(), alone[numbers].to_numpy(), atol=BATCH_TOLERANCE
        )


def test_a_path_into_the_next_layer_of_a_parallel_block_is_the_ablation(engines: Any) -> None:
    """GPT-NeoX: the MLP reads what the attention reads, so nothing stands between."""
    for family, same in (("neox", True), ("gpt2", False)):
        head = ((0, 1),)
        pair = [AblateHeads(head), PatchPath(head, 1)]
        frame = engines[family].measure(PROMPTS, pair)
        by = frame.pivot(index="example", columns="intervention", values="logit_diff")
        apart = (by[pair[0].label] - by[pair[1].label]).abs().max()
        assert (apart < BATCH_TOLERANCE) == same


def test_a_path_to_the_logits_from_the_last_layer_of_a_parallel_block(engines: Any) -> None:
    head = ((N_LAYERS - 1, 2),)
    pair: list[Intervention] = [AblateHeads(head), PatchPath(head, N_LAYERS)]
    frame = engines["neox"].measure(PROMPTS, pair)
    by = frame.pivot(index="example", columns="intervention", values="logit_diff")
    assert (by[pair[0].label] - by[pair[1].label]).abs().max() < BATCH_TOLERANCE


# Examples of four clusters, all of one length but the last two.
OTHERS = make_prompts([6] * 8 + [9, 9], seed=5)
OTHER_PAIRS = make_prompts([6] * 8 + [9, 9], seed=6)
OTHER_CLUSTERS = ["a", "a", "b", "b", "c", "c", "d", "d", "a", "b"]


def lenders_seen(engine: Engine, clusters: Any, seed: int) -> list[int]:
    """For each example, which pair prompt's logits replacing everything gives."""
    patch = PatchResidual(0, 0, "all", "other")
    frame = engine.measure(OTHERS, [patch], pairs=OTHER_PAIRS, clusters=clusters, seed=seed)
    found = frame[frame.intervention == patch.label].logit_diff.to_numpy()
    lenders = []
    for example, prompt in enumerate(OTHERS):
        asked = [pair._replace(target=prompt.target, foil=prompt.foil) for pair in OTHER_PAIRS]
        figures = engine.measure(asked, []).logit_diff.to_numpy()
        near = np.flatnonzero(np.abs(figures - found[example]) < BATCH_TOLERANCE)
        assert len(near) == 1
        lenders.append(int(near[0]))
    return lenders


def test_other_donors_are_of_another_cluster_and_drawn_by_the_seed(engines: Any) -> None:
    drawn = [lenders_seen(engines["gpt2"], OTHER_CLUSTERS, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for lenders in drawn:
        for example, lender in enumerate(lenders):
            assert OTHER_CLUSTERS[lender] != OTHER_CLUSTERS[example]
            assert len(OTHERS[lender].ids) == len(OTHERS[example].ids)
    # Without clusters, an example's own pair prompt is still no other's.
    assert all(i != lender for i, lender in enumerate(lenders_seen(engines["gpt2"], None, 0)))


def test_other_donors_are_not_those_of_resample(engines: Any) -> None:
    """Each purpose draws for itself: asking for both moves neither."""
    both: list[Intervention] = [
        AblateHeads(((0, 1),), "resample"),
        PatchHeads(((0, 1),), donor="other"),
    ]
    given = {"clusters": OTHER_CLUSTERS, "pairs": OTHER_PAIRS, "reference": OTHERS}
    together = engines["gpt2"].measure(OTHERS, both, **given)
    for one in both:
        apart = engines["gpt2"].measure(OTHERS, [one], **given)
        rows = together[together.intervention == one.label].logit_diff.to_numpy()
        own = apart[apart.intervention == one.label].logit_diff.to_numpy()
        assert np.abs(rows - own).max() < BATCH_TOLERANCE


def test_tables_say_what_was_done(engines: Any) -> None:
    some: list[Intervention] = [
        PatchResidual(1, 2, "subject"),
        PatchHeads(((0, 1),), "last", "self"),
        PatchHeads(((0, 1), (1, 2))),
        PatchMLP(2, 1, donor="self"),
        PatchPath(((0, 3),), 3),
        Steer(1, "truth", -1),
    ]
    frame = engines["mistral"].measure(PROMPTS, some, **GIVEN)
    assert list(frame.intervention.drop_duplicates()) == ["baseline", *(i.label for i in some)]
    columns = ["method", "heads", "layer", "head", "scale"]
    columns += ["granularity", "window", "positions", "donor"]
    assert frame[:: len(PROMPTS)][columns].to_numpy().tolist() == [
        ["none", "", -1, -1, 1.0, "", 0, "", ""],
        ["patch_residual", "", 1, -1, 0.0, "residual", 2, "subject", "pair"],
        ["patch_heads", "0.1", 0, 1, 0.0, "head", 0, "last", "self"],
        ["patch_heads", "0.1+1.2", -1, -1, 0.0, "head", 0, "all", "pair"],
        ["patch_mlp", "", 2, -1, 0.0, "mlp", 1, "last", "self"],
        ["path", "0.3", 3, -1, 0.0, "path", 0, "all", ""],
        ["steer", "", 1, -1, -1.0, "steer", 0, "all", ""],
    ]
    assert str(frame.window.dtype) == "int64"


@pytest.mark.parametrize("family", FAMILIES)
def test_span_figures_of_one_token_are_its_own(family: str, measured: Any) -> None:
    rows = measured[family]
    assert (rows.seq_logprob_diff == rows.logit_diff).all()
    assert (rows.seq_probability == rows.target_probability).all()
    assert (rows.seq_kl_mean == rows.kl).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family: str, tiny_models: Any) -> None:
    """P20: every hook and stub is gone, also after an error in mid-run."""
    model = tiny_models[family].model
    ids = torch.tensor([PROMPTS[0].ids])
    before = model(ids).logits
    engine = Engine(tiny_models[family])
    engine.measure(
        PROMPTS, [PatchMLP(0, 2), PatchResidual(1), *PATHS[:2]], pairs=PAIRS, reference=REFERENCE
    )
    calls = engine.architecture.record(ids)[0]
    for layer in (1, N_LAYERS - 1):
        with pytest.raises(IndexError):
            engine.architecture.through(calls, layer, torch.zeros(1, 6, 32), None, lambda m: m[9])
    assert torch.equal(model(ids).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any("forward" in vars(m) for m in model.modules())


def test_figures_are_finite_in_half_precision(tiny_entry: Any) -> None:
    engine = Engine(load_model(tiny_entry("mistral"), dtype="bfloat16"))
    some = [*RESIDUAL[::4], *MLPS[::4], *HEADS[::4], *PATHS[::8], *STEERS[::3]]
    frame = engine.measure(PROMPTS, some, **GIVEN)
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()


@pytest.mark.parametrize(
    ("interventions", "given", "message"),
    [
        ([PatchResidual(1)], {"pairs": None}, "residual:L01w0:last:pair.*give pairs="),
        ([PatchHeads(((0, 1),), donor="other")], {"pairs": None}, "give pairs="),
        ([PatchMLP(1)], {"pairs": PAIRS[:2]}, "pairs has 2 prompts for 9 examples"),
        (
            [PatchMLP(1)],
            {"pairs": [PAIRS[0], PAIRS[0], *PAIRS[2:]]},
            "example 1 has 9 tokens and its pair prompt 6",
        ),
        (
            [PatchMLP(1)],
            {"pairs": [Prompt((0, VOCABULARY), 1, 2), *PAIRS[1:]]},
            "pair prompt 0: token id 300",
        ),
        ([PatchMLP(1, positions="subject")], {"subjects": None}, "mlp:L01.*give subjects="),
        (
            [PatchMLP(1, positions="subject")],
            {"subjects": SUBJECTS[:3]},
            "subjects has 3 entries for 9 examples",
        ),
        (
            [PatchMLP(1, positions="subject")],
            {"subjects": [(1,), (), *SUBJECTS[2:]]},
            "example 1 has no subject",
        ),
        (
            [PatchMLP(1, positions="subject")],
            {"subjects": [(1,), (3, 9), *SUBJECTS[2:]]},
            r"example 1: subject positions \(3, 9\) are not all within its 9 tokens",
        ),
        (
            [PatchMLP(1, positions="subject")],
            {"subjects": [(-1,), *SUBJECTS[1:]]},
            "example 0: subject positions",
        ),
        ([Steer(1, "truth", 1)], {"directions": None}, "needs the direction 'truth'"),
        ([Steer(1, "lies", 1)], {}, "needs the direction 'lies'"),
        (
            [Steer(1, "truth", 1)],
            {"directions": {"truth": torch.zeros(31)}},
            "'truth', of shape .31., must be 32 finite numbers",
        ),
        (
            [Steer(1, "truth", 1)],
            {"directions": {"truth": torch.full((32,), torch.nan)}},
            "finite",
        ),
        (
            [PatchMLP(1, donor="other")],
            {"clusters": CLUSTERS},
            r"example 0 \(6 tokens, cluster 'a'\) has no donor \(other\)",
        ),
        (
            [PatchPath(((0, 1),), 2, "mean")],
            {"reference": None},
            "mean: reference prompts are needed",
        ),
        ([PatchResidual(3)], {}, r"no layer 3 \(residual:L03w0:last:pair\); it has 3"),
        ([PatchMLP(3)], {}, "no layer 3"),
        ([Steer(3, "truth", 1)], {}, "no layer 3"),
        ([PatchPath(((0, 1),), 4)], {}, "no layer 4"),
        ([PatchPath(((0, 4),), 2)], {}, "no head 0:4"),
        ([PatchHeads(((0, 1), (3, 0)))], {}, "no head 3:0"),
    ],
)
def test_unusable_requests_are_refused(
    engines: Any, interventions: Any, given: Any, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        engines["gpt2"].measure(PROMPTS, interventions, **{**GIVEN, **given})


def test_what_is_not_needed_is_not_asked_for(engines: Any) -> None:
    """Pairs of other lengths are no obstacle where nothing borrows from them."""
    pairs = make_prompts([3] * len(PROMPTS), seed=4)
    frame = engines["gpt2"].measure(
        PROMPTS,
        [AblateHeads(((0, 1),)), PatchResidual(1, donor="self")],
        pairs=pairs,
        subjects=[()] * len(PROMPTS),
    )
    assert len(frame) == 3 * len(PROMPTS)


def test_a_model_that_changes_its_attentions_output_has_no_direct_paths(tiny_entry: Any) -> None:
    """A norm between attention and stream, as in Gemma 2, is caught; ablation may go on."""
    from torch import nn

    class Halving(nn.Module):
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.block = block

        def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return hidden + 0.5 * (self.block(hidden, *args, **kwargs) - hidden)

    engine = Engine(load_model(tiny_entry("llama")))
    layers = engine.architecture.layers
    engine.architecture.layers = (
        replace(layers[0], block=Halving(layers[0].block)),
        *layers[1:],
    )
    engine.loaded.model.model.layers[0] = engine.architecture.layers[0].block
    assert len(engine.measure(PROMPTS, [AblateHeads(((0, 1),))])) == 2 * len(PROMPTS)
    with pytest.raises(EngineError, match="layer 0 does not add its attention's output"):
        engine.measure(PROMPTS, [PatchPath(((0, 1),), 2)])
    assert len(engine.measure(PROMPTS, [PatchPath(((1, 1),), 2)])) == 2 * len(PROMPTS)


def test_a_model_without_mlp_modules_cannot_be_patched_there(tiny_entry: Any) -> None:
    engine = Engine(load_model(tiny_entry("gpt2")))
    layers = engine.architecture.layers
    engine.architecture.layers = (*layers[:-1], replace(layers[-1], mlp=None))
    assert len(engine.measure(PROMPTS, [AblateHeads(((2, 1),))])) == 2 * len(PROMPTS)
    with pytest.raises(EngineError, match="mlp:L01w1:last:self cannot be measured"):
        engine.measure(PROMPTS, [PatchMLP(1, 1, donor="self")])
    with pytest.raises(EngineError, match="path patching"):
        engine.measure(PROMPTS, [PatchPath(((2, 1),), 3)])
