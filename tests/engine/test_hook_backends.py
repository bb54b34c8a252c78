"""Both ways to hook, against one prompt alone, weights changed by hand, identities and the engine.

Run: pytest tests/engine/test_hook_backends.py
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.bridging import run_cached
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS
from tests.engine.test_engine_patching import (
    DIRECTIONS,
    KINDS,
    PAIRS,
    PROMPTS,
    REFERENCE,
    SUBJECTS,
    Alone,
)
from tinyablation.engine.hook_backends import (
    BACKENDS,
    BRIDGE,
    PLAIN,
    BackendError,
    BridgeHooks,
    Case,
    Place,
    PlainHooks,
    is_spread,
)
from tinyablation.engine.hook_changes import Changes
from tinyablation.interventions.interventions import (
    METHODS,
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.loading import load_model
from tinyablation.models.registry import ModelEntry, load_registry
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
# fp32 sums in another order, in logits of some units: 1e-5 is the most seen here.
SAME = 1e-4
MOVED = 0.02  # logits: less than this and hooks that do nothing would agree with each other
MAKE = {PLAIN: PlainHooks, BRIDGE: BridgeHooks}
EXAMPLES = range(len(PROMPTS))

every_family = pytest.mark.parametrize("family", FAMILIES)
either = pytest.mark.parametrize("name", BACKENDS)


def case_of(example: int, **lenders: Any) -> Case:
    prompt = PROMPTS[example]
    known = {"self": prompt.ids, "pair": PAIRS[example].ids}
    return Case(prompt.ids, prompt.target, prompt.foil, known | lenders, SUBJECTS[example])


def changes_of(backend: Any, **given: Any) -> Changes:
    whole = {"reference": [each.ids for each in REFERENCE], "bos_id": 0, "directions": DIRECTIONS}
    return Changes(backend, **{**whole, **given})


@pytest.fixture(scope="module")
def backends(tiny_models: Any) -> dict[tuple[str, str], Any]:
    """By (name, family), over the tiny random models."""
    return {
        (name, family): make(tiny_models[family])
        for name, make in MAKE.items()
        for family in FAMILIES
    }


# --- against other ways to the same figure --------------------------------------------------------


@pytest.fixture(scope="module")
def alone(bridges: Any) -> dict[str, Alone]:
    return {family: Alone(bridges[family, False]) for family in FAMILIES}


@pytest.mark.slow  # some 3,000 passes by hooks: make slow
@either
@pytest.mark.parametrize("kind", KINDS)
@every_family
def test_patches_paths_and_steering_are_those_of_one_prompt_alone(
    family: str, kind: str, name: str, backends: Any, alone: Any
) -> None:
    """The other side writes over a bridge's activations, and sends paths by algebra over W_O."""
    changes = changes_of(backends[name, family])
    moved = 0.0
    for intervention in KINDS[kind]:
        for example in (0, 1, 5):  # of three lengths
            case = case_of(example)
            logits = alone[family].logits(intervention, example)
            due = (logits[case.target] - logits[case.foil]).item()
            found = changes.changed(case, intervention)
            assert found == pytest.approx(due, abs=SAME), (intervention.label, example)
            moved = max(moved, abs(found - changes.clean(case)))
    assert moved > MOVED


def output_projection(family: str, model: Any, layer: int) -> nn.Module:
    """The module that the heads' outputs go through, found by the name each family gives it."""
    stack = {"gpt2": "transformer.h", "neox": "gpt_neox.layers"}.get(family, "model.layers")
    own = {"gpt2": "attn.c_proj", "neox": "attention.dense"}.get(family, "self_attn.o_proj")
    return model.get_submodule(f"{stack}.{layer}.{own}")


def by_weights(family: str, model: Any, head: Any, scale: float, constant: Any) -> Any:
    """A copy whose output projection scales one head's input, and adds the head's constant."""
    changed = copy.deepcopy(model)
    layer, number = head
    module: Any = output_projection(family, changed, layer)
    # GPT-2 keeps its matrices [in, out], the others [out, in].
    matrix = module.weight if family == "gpt2" else module.weight.T
    size = len(matrix) // N_HEADS
    own = slice(number * size, (number + 1) * size)
    with torch.no_grad():
        added = constant @ matrix[own]
        matrix[own] *= scale
        bias = getattr(module, "bias", None)
        module.bias = nn.Parameter(added if bias is None else bias + added)
    return changed


def folded_constant(family: str, model: Any, bridge: Any, head: Any) -> torch.Tensor:
    """What a head adds whatever it attends to, from the model's own joint matrices."""
    layer, number = head
    size = 32 // N_HEADS
    if family == "gpt2":
        block = model.transformer.h[layer]
        begin = 2 * 32 + number * size  # queries, keys, values side by side
        columns = slice(begin, begin + size)
        joint = block.attn.c_attn
        return joint.bias[columns] + block.ln_1.bias @ joint.weight[:, columns]
    if family == "neox":
        block = model.gpt_neox.layers[layer]
        begin = number * 3 * size + 2 * size  # a head's query, key and value together
        rows = slice(begin, begin + size)
        joint = block.attention.query_key_value
        return joint.bias[rows] + block.input_layernorm.bias @ joint.weight[rows].T
    return torch.zeros(size)


@either
@every_family
def test_ablations_are_models_of_other_weights(
    family: str, name: str, backends: Any, tiny_models: Any, bridges: Any
) -> None:
    """Zero, folded, mean, scale and steering put a constant in, as the projection's weights can."""
    model, head = tiny_models[family].model, (1, 2)
    changes = changes_of(backends[name, family])
    z = [run_cached(bridges[family, False], each.ids)["blocks.1.attn.hook_z"] for each in REFERENCE]
    mean = torch.cat([each[0, 1:, 2] for each in z]).mean(dim=0)
    none = torch.zeros_like(mean)
    folded = folded_constant(family, model, bridges[family, False], head)
    ways: list[tuple[Intervention, Any]] = [
        (AblateHeads((head,)), (0.0, none)),
        (AblateHeads((head,), "zero_folded"), (0.0, folded)),
        (AblateHeads((head,), "mean"), (0.0, mean)),
        (ScaleHeads((head,), -0.5), (-0.5, none)),
        (ScaleHeads((head,), 2.0), (2.0, none)),
    ]
    found = {}
    for intervention, (scale, constant) in ways:
        changed = by_weights(family, model, head, scale, constant)
        for example in EXAMPLES:
            case = case_of(example)
            with torch.no_grad():
                logits = changed(torch.tensor([case.ids])).logits[0, -1].double()
            due = (logits[case.target] - logits[case.foil]).item()
            found[intervention.label, example] = changes.changed(case, intervention)
            assert found[intervention.label, example] == pytest.approx(due, abs=SAME)
    zero, other = (way.label for way, _ in ways[:2])
    apart = max(abs(found[zero, example] - found[other, example]) for example in EXAMPLES)
    assert (apart > MOVED) == (family in ("gpt2", "neox"))  # without biases nothing is folded
    push = Steer(1, "truth", 0.5)
    steered = copy.deepcopy(model)
    module: Any = output_projection(family, steered, 1)
    bias = 0.5 * DIRECTIONS["truth"]
    own = getattr(module, "bias", None)
    module.bias = nn.Parameter(bias if own is None else own.detach() + bias)
    with torch.no_grad():
        logits = steered(torch.tensor([PROMPTS[0].ids])).logits[0, -1].double()
    due = (logits[PROMPTS[0].target] - logits[PROMPTS[0].foil]).item()
    assert changes.changed(case_of(0), push) == pytest.approx(due, abs=SAME)


@either
@every_family
def test_what_must_change_nothing_and_what_must_change_all(
    family: str, name: str, backends: Any, tiny_models: Any
) -> None:
    changes, model = changes_of(backends[name, family]), tiny_models[family].model
    case = case_of(1)
    clean = changes.clean(case)
    with torch.no_grad():
        own, donor = (
            model(torch.tensor([ids])).logits[0, -1].double() for ids in (case.ids, PAIRS[1].ids)
        )
    assert clean == pytest.approx(float(own[case.target] - own[case.foil]), abs=SAME)
    lent = float(donor[case.target] - donor[case.foil])
    assert abs(lent - clean) > 10 * SAME
    for layer in range(N_LAYERS):  # the whole stream is all that later layers know of the prompt
        patch = PatchResidual(layer, 0, "all")
        assert changes.changed(case, patch) == pytest.approx(lent, abs=SAME)
    shams: list[Intervention] = [
        PatchResidual(1, 1, "subject", "self"),
        PatchMLP(1, 2, "all", "self"),
        PatchHeads(((0, 1), (2, 3)), "last", "self"),
        ScaleHeads(((0, 1), (1, 2)), 1.0),
        Steer(0, "noise", 0.0),
    ]
    for sham in shams:
        assert changes.changed(case, sham) == pytest.approx(clean, abs=SAME), sham.label
    twice = changes.changed(case, ScaleHeads(((0, 1),), 0.0))
    assert twice == changes.changed(case, AblateHeads(((0, 1),))) != clean
    mine = case_of(1, resample=case.ids)
    assert changes.changed(mine, AblateHeads(((1, 0),), "resample")) == pytest.approx(
        clean, abs=SAME
    )


@either
@every_family
def test_a_longer_donor_lends_its_last_positions(family: str, name: str, backends: Any) -> None:
    """By hand: z of the donor's last tokens, put in for the prompt's."""
    backend, case = backends[name, family], case_of(0)
    longer = PROMPTS[5].ids
    place, heads = Place("z", 1), ((1, 0), (1, 3))
    _, found = backend.run(torch.tensor([longer]), kept=[place])
    lent = found[place][:, -len(case.ids) :]

    def edit(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([lent[:, :, :1], z[:, :, 1:3], lent[:, :, 3:]], dim=2)

    logits, _ = backend.run(torch.tensor([case.ids]), {place: edit})
    due = float(logits[0, case.target] - logits[0, case.foil])
    mine = case_of(0, resample=longer)
    assert changes_of(backend).changed(mine, AblateHeads(heads, "resample")) == due
    assert abs(due - changes_of(backend).clean(case)) > 1e-3


# --- against the engine, on the embedded models ---------------------------------------------------

EMBEDDED = ("tiny-gpt2", "tiny-mistral", "tiny-llama", "tiny-neox")
WHOLE: list[Intervention] = [
    *(AblateHeads(((0, 7),), method) for method in METHODS),  # type: ignore[arg-type]
    *(AblateHeads(((0, 2), (1, 5), (3, 0)), method) for method in METHODS),  # type: ignore[arg-type]
    ScaleHeads(((0, 7), (2, 1)), -0.5),
    ScaleHeads(((1, 3),), 2.0),
    *(
        kind
        for donor in ("pair", "self", "other")
        for positions in ("all", "last", "subject")
        for kind in (
            PatchHeads(((0, 7), (2, 4)), positions, donor),  # type: ignore[arg-type]
            PatchResidual(1, 1, positions, donor),  # type: ignore[arg-type]
            PatchMLP(2, 1, positions, donor),  # type: ignore[arg-type]
        )
    ),
    *(
        PatchPath(heads, receiver, method)  # type: ignore[arg-type]
        for heads in (((0, 7),), ((1, 0), (1, 6)), ((3, 2),))
        for receiver in (heads[0][0] + 1, 4)
        for method in ("zero", "zero_folded", "mean")
    ),
    Steer(0, "truth", -1.0),
    Steer(3, "truth", 2.0),
]
WHOLE = list(dict.fromkeys(WHOLE))


@pytest.mark.slow
@pytest.mark.parametrize("model", EMBEDDED)
def test_every_kind_of_intervention_agrees_with_the_engine(model: str, tmp_path: Path) -> None:
    """P20, grouped-query attention among them: within 1e-4 logits in every change of LD."""
    entry = load_registry(ROOT / "fixtures" / "models.toml")[model]
    bench = Bench(Setup(entry=entry, corpora=ROOT / "corpora"), RunStore(tmp_path), threads=1)
    aligned = [example for example in bench.examples("facts") if example.aligned]
    clean, corrupt = (bench.encode(aligned, side) for side in ("clean", "corrupt"))
    rows: dict[int, list[int]] = {}
    for row, prompt in enumerate(clean):
        rows.setdefault(len(prompt.ids), []).append(row)
    kept = [same for same in rows.values() if len(same) > 1][:3]  # three lengths
    chosen = [same[-1] for same in kept]
    prompts, pairs = ([of[row] for row in chosen] for of in (clean, corrupt))
    subjects = [
        tuple(n for n, both in enumerate(zip(own.ids, pair.ids, strict=True)) if len({*both}) > 1)
        for own, pair in zip(prompts, pairs, strict=True)
    ]
    # Of each length one prompt that lends, so that the engine's draw is known.
    others = {len(corrupt[same[0]].ids): corrupt[same[0]] for same in kept}
    reference = clean[:12]
    longest = max(clean, key=lambda prompt: len(prompt.ids)).ids
    generator = torch.Generator().manual_seed(0)
    directions = {"truth": torch.randn(bench.facts.d_model, generator=generator)}
    frame = bench.engine.measure(
        prompts,
        WHOLE,
        reference=reference,
        pairs=pairs,
        others=list(others.values()),
        subjects=subjects,
        directions=directions,
        donors=[longest] * len(prompts),
    )
    wide = frame.pivot(index="intervention", columns="example", values="logit_diff")
    engine = wide - wide.loc["baseline"]
    cases = [
        Case(
            prompt.ids,
            prompt.target,
            prompt.foil,
            {
                "self": prompt.ids,
                "pair": pair.ids,
                "other": others[len(prompt.ids)].ids,
                "resample": longest,
            },
            subject,
        )
        for prompt, pair, subject in zip(prompts, pairs, subjects, strict=True)
    ]
    for backend in (bench.plain_hooks, bench.bridge_hooks):
        changes = Changes(
            backend,
            reference=[each.ids for each in reference],
            bos_id=bench.model.bos_id,
            directions=directions,
        )
        before = [changes.clean(case) for case in cases]
        for intervention in WHOLE:
            for example, case in enumerate(cases):
                found = changes.changed(case, intervention) - before[example]
                due = engine.loc[intervention.label, example]
                where = f"{backend.name}, {intervention.label}, example {example}"
                assert found == pytest.approx(due, abs=SAME), where
    assert (engine.abs().max(axis=1) > 100 * SAME).mean() > 0.6  # a sixth of them are shams


# --- what is left behind --------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for whatever ends a pass in the middle."""


def test_hooks_are_gone_after_a_pass_and_after_an_error(backends: Any, tiny_models: Any) -> None:
    ids = torch.tensor([PROMPTS[0].ids])

    def interrupt(value: torch.Tensor) -> torch.Tensor:
        raise Interrupted

    for (name, family), backend in backends.items():
        model = tiny_models[family].model
        with torch.no_grad():
            before = model(ids).logits
        clean, _ = backend.run(ids)
        changes = changes_of(backend)
        for intervention in (AblateHeads(((1, 0),), "zero_folded"), *KINDS["path"][:2]):
            changes.changed(case_of(0), intervention)
        backend.run(ids, kept=[Place("mlp", 0)], up_to=1)
        with pytest.raises(Interrupted):
            backend.run(ids, {Place("attention", 1): interrupt})
        with torch.no_grad():
            assert torch.equal(model(ids).logits, before), (name, family)
        assert torch.equal(backend.run(ids)[0], clean), (name, family)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@either
@every_family
def test_what_is_kept_is_as_it_is_after_edits_and_what_is_given_is_a_copy(
    family: str, name: str, backends: Any
) -> None:
    backend, ids = backends[name, family], torch.tensor([PROMPTS[0].ids])
    every = [Place("z", 0), Place("attention", 0), Place("mlp", 0), Place("stream", 1)]
    ends = [Place("stream", 0), Place("stream", N_LAYERS)]
    logits, clean = backend.run(ids, kept=[*every, *ends])
    assert clean[every[0]].shape == (1, 6, N_HEADS, 8)
    assert {clean[place].shape for place in (*every[1:], *ends)} == {(1, 6, 32)}
    _, changed = backend.run(ids, {every[0]: lambda z: z.zero_()}, every)
    assert not changed[every[0]].any() and clean[every[0]].any()
    assert not torch.equal(changed[every[3]], clean[every[3]])
    # The stream is what the layer adds to it.
    added = clean[ends[0]] + clean[every[1]] + clean[every[2]]
    torch.testing.assert_close(added, clean[every[3]], atol=1e-5, rtol=0)
    whole, _ = backend.run(ids, {ends[1]: lambda stream: clean[ends[1]]})
    torch.testing.assert_close(whole, logits, atol=1e-5, rtol=0)
    short, kept = backend.run(ids, kept=every[:3], up_to=1)
    assert not len(short)
    for place, value in kept.items():
        torch.testing.assert_close(value, clean[place], atol=1e-6, rtol=0)


@every_family
def test_a_bridge_shares_the_memory_of_the_weights(family: str, tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry(family))
    backend = BridgeHooks(loaded)
    own = {each.untyped_storage().data_ptr() for each in loaded.model.parameters()}
    foreign = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in backend.bridge.original_model.parameters()
        if each.untyped_storage().data_ptr() not in own
    }
    # Joint query-key-value matrices are split: 3 x 32 x 32 weights and their biases a layer.
    joint = N_LAYERS * (3 * 32 * 32 + 3 * 32) * 4
    assert sum(foreign.values()) <= (joint if family in ("gpt2", "neox") else 0)
    ids = torch.tensor([PROMPTS[0].ids])
    before, _ = backend.run(ids)
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.mul_(2)
    assert not torch.equal(backend.run(ids)[0], before)
    # And is a tree of its own: what a bridge rebuilds is not the engine's.
    assert backend.bridge.original_model is not loaded.model


# --- what cannot be hooked ------------------------------------------------------------------------


def test_a_model_whose_modules_are_not_found_is_refused(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("llama"))
    loaded.model.model.layers[2].self_attn.__dict__["_modules"].pop("o_proj")
    with pytest.raises(BackendError, match="TransformerLens cannot resolve LlamaForCausalLM"):
        PlainHooks(loaded)
    with pytest.raises(BackendError, match="no TransformerBridge can be put around it"):
        BridgeHooks(loaded)


def test_an_unknown_architecture_is_refused_by_both(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("gpt2"))
    loaded.model.__class__ = type("Unheard", (type(loaded.model),), {})
    with pytest.raises(BackendError, match="TransformerLens cannot resolve Unheard"):
        PlainHooks(loaded)
    with pytest.raises(BackendError, match="no TransformerBridge can be put around it.*Unheard"):
        BridgeHooks(loaded)


def test_a_model_over_several_devices_gets_no_bridge(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("gpt2"))
    assert not is_spread(loaded)
    loaded.model.hf_device_map = {"transformer.wte": 0, "transformer.h": 0}
    assert not is_spread(loaded)
    loaded.model.hf_device_map = {"transformer.wte": 0, "transformer.h": "cpu"}
    assert is_spread(loaded)
    with pytest.raises(BackendError, match="spread over several devices"):
        BridgeHooks(loaded)
    assert PlainHooks(loaded).n_layers == N_LAYERS  # hooks are on modules, wherever they are


def test_an_mlp_that_is_no_module_cannot_be_hooked(tmp_path: Path, tiny_folders: Any) -> None:
    """OPT's blocks hold the two matrices of their MLP themselves."""
    import transformers as hf

    config = hf.OPTConfig(
        vocab_size=300,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    )
    loaded = load_model_like(hf.OPTForCausalLM(config).eval(), tiny_folders["gpt2"])
    ids = torch.tensor([PROMPTS[0].ids])
    backend = PlainHooks(loaded)
    with pytest.raises(BackendError, match=r"no blocks\.0\.mlp that is a module of its own"):
        backend.run(ids, kept=[Place("mlp", 0)])
    assert changes_of(backend).changed(case_of(0), AblateHeads(((0, 1),)))


def load_model_like(model: Any, folder: Path) -> Any:
    """The tiny GPT-2's LoadedModel around another model of its shape."""
    entry = ModelEntry.model_validate(
        {"id": "made-up", "title": "OPT", "source": folder, "family": "gpt2", "variant": "plain"}
        | {"bos": True}
    )
    loaded = load_model(entry)
    return replace(loaded, model=model, facts=replace(loaded.facts, n_layers=2))


def test_places_that_a_model_lacks_and_means_of_nothing(backends: Any) -> None:
    ids = torch.tensor([PROMPTS[0].ids])
    for (_, family), backend in backends.items():
        with pytest.raises(BackendError, match=r"has no blocks\.7"):
            backend.run(ids, kept=[Place("mlp", 7)])
        changes = changes_of(backend, reference=[(0,), (0,)])
        with pytest.raises(BackendError, match="hold no token but BOS"):
            changes.changed(case_of(0), AblateHeads(((0, 1),), "mean"))
        assert family in FAMILIES
