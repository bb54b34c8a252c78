"""The engine against one-prompt-alone TransformerBridge hooks, and its refusals.

Run: pytest tests/engine/test_engine.py
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from tests.bridging import make_prompts, run_cached, run_hooked
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine import clean_pass as clean
from tinyablation.engine.architecture import Architecture
from tinyablation.engine.donors import draw_donors
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.interventions.interventions import AblateHeads, Intervention, ScaleHeads
from tinyablation.models.loading import load_model

# fp32 sums in another order: below 1e-5 here, and 1e-4 is what the engine promises.
ORACLE_TOLERANCE = 1e-4
# The same row in a batch of another shape.
BATCH_TOLERANCE = 1e-5

EVERY_HEAD = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
GROUPS = [
    *(((layer, head),) for layer, head in EVERY_HEAD),
    ((0, 1), (0, 3)),
    ((2, 0), (2, 2)),
    ((0, 1), (1, 2)),
    ((0, 0), (1, 1), (2, 3)),
    ((1, 0), (2, 0)),
]


PROMPTS = make_prompts([6, 9, 6, 4, 9, 11])
REFERENCE = make_prompts([6, 6, 9, 13, 4, 12], seed=1)


def bridge_logits(
    bridge: Any,
    ids: tuple[int, ...],
    heads: Any,
    change: Callable[[torch.Tensor, int, int], Any],
) -> torch.Tensor:
    """Last-token logits of one prompt alone, hook_z of each head changed by `change`."""

    def hook_of(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def hook(z: torch.Tensor) -> torch.Tensor:
            for at, head in heads:
                if at == layer:
                    z[:, :, head] = change(z[:, :, head], layer, head)
            return z

        return hook

    return run_hooked(
        bridge, ids, {f"blocks.{at}.attn.hook_z": hook_of(at) for at in {h[0] for h in heads}}
    )


def bridge_z(bridge: Any, ids: tuple[int, ...]) -> list[torch.Tensor]:
    """z of every layer, [positions, head, d_head]."""
    cache = run_cached(bridge, ids)
    return [cache[f"blocks.{layer}.attn.hook_z"][0] for layer in range(N_LAYERS)]


def assert_same(
    frame: Any, interventions: list[Intervention], oracle: Callable[..., torch.Tensor]
) -> None:
    """Every figure of every row from the oracle's logits, oracle(intervention, prompt, example)."""
    rows = frame.set_index(["intervention", "example"])
    assert len(rows) == (len(interventions) + 1) * len(PROMPTS)
    moved = 0.0
    for example, prompt in enumerate(PROMPTS):
        baseline = rows.loc[("baseline", example)]
        for intervention in interventions:
            row = rows.loc[(intervention.label, example)]
            logits = oracle(intervention, prompt, example)
            expected = logits[prompt.target] - logits[prompt.foil]
            assert row.logit_diff == pytest.approx(expected.item(), abs=ORACLE_TOLERANCE)
            assert row.target_logit == pytest.approx(
                logits[prompt.target].item(), abs=ORACLE_TOLERANCE
            )
            assert row.target_probability == pytest.approx(
                logits.softmax(-1)[prompt.target].item(), abs=ORACLE_TOLERANCE
            )
            assert row["argmax"] == logits.argmax().item()
            assert row.target_rank == (logits > logits[prompt.target]).sum().item()
            assert row.entropy == pytest.approx(
                torch.distributions.Categorical(logits=logits).entropy().item(),
                abs=ORACLE_TOLERANCE,
            )
            moved = max(moved, abs(row.logit_diff - baseline.logit_diff))
    # The sentinel: hooks that silently do nothing would agree with each other.
    assert moved > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_is_the_bridge_with_hook_z_zeroed(family: str, engines: Any, bridges: Any) -> None:
    interventions: list[Intervention] = [AblateHeads(heads) for heads in GROUPS]
    frame = engines[family].measure(PROMPTS, interventions)
    bridge = bridges[family, False]

    def oracle(intervention: Any, prompt: Prompt, example: int) -> torch.Tensor:
        return bridge_logits(bridge, prompt.ids, intervention.heads, lambda z, *_: z * 0)

    assert_same(frame, interventions, oracle)


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_folded_is_the_folded_bridge(family: str, engines: Any, bridges: Any) -> None:
    interventions = [AblateHeads(heads, "zero_folded") for heads in GROUPS]
    frame = engines[family].measure(PROMPTS, interventions)
    rows = frame.set_index(["intervention", "example"])
    for example, prompt in enumerate(PROMPTS):
        for intervention in interventions:
            logits = bridge_logits(
                bridges[family, True],
                prompt.ids,
                intervention.heads,
                lambda z, *_: z * 0,
            )
            # Folding centres the unembedding, so only differences of logits are comparable.
            assert rows.loc[(intervention.label, example)].logit_diff == pytest.approx(
                (logits[prompt.target] - logits[prompt.foil]).item(),
                abs=ORACLE_TOLERANCE,
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_folded_differs_from_zero_only_where_biases_are(family: str, engines: Any) -> None:
    zero, folded = (AblateHeads(((0, 1),), method) for method in ("zero", "zero_folded"))
    frame = engines[family].measure(PROMPTS, [zero, folded])
    by = frame.pivot(index="example", columns="intervention", values="logit_diff")
    difference = (by[zero.label] - by[folded.label]).abs().max()
    assert difference > 1e-3 if family in ("gpt2", "neox") else difference == 0.0


def test_the_constant_of_zero_folded_is_that_of_the_prompts_at_hand(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over another number of positions may round otherwise: 6e-8 were seen."""
    passes = Engine(engines["neox"].loaded).passes

    def of_length(_: Any, calls: Any, positions: int) -> torch.Tensor:
        return torch.full((N_LAYERS, 1), float(positions))

    monkeypatch.setattr(Architecture, "folded_z", of_length)
    for ids in ((1, 2, 3), (1, 2), (3, 2, 1)):
        assert passes.folded(ids)[0] == len(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_is_the_reference_mean_without_bos(family: str, engines: Any, bridges: Any) -> None:
    interventions: list[Intervention] = [AblateHeads(heads, "mean") for heads in GROUPS]
    # A reference prompt given twice weighs twice.
    reference = [*REFERENCE, REFERENCE[0]]
    frame = engines[family].measure(PROMPTS, interventions, reference=reference)
    bridge = bridges[family, False]
    z = [bridge_z(bridge, prompt.ids) for prompt in reference]
    means = [torch.cat([of[layer][1:] for of in z]).mean(dim=0) for layer in range(N_LAYERS)]

    def oracle(intervention: Any, prompt: Prompt, example: int) -> torch.Tensor:
        return bridge_logits(
            bridge,
            prompt.ids,
            intervention.heads,
            lambda _, layer, head: means[layer][head],
        )

    assert_same(frame, interventions, oracle)


@pytest.mark.parametrize("family", FAMILIES)
def test_resample_is_the_donor_patched_in(family: str, engines: Any, bridges: Any) -> None:
    interventions: list[Intervention] = [AblateHeads(heads, "resample") for heads in GROUPS]
    frame = engines[family].measure(PROMPTS, interventions, reference=REFERENCE, seed=3)
    bridge = bridges[family, False]
    donors = draw_donors([p.ids for p in PROMPTS], None, [p.ids for p in REFERENCE], None, 3)
    z = {donor: bridge_z(bridge, donor) for donor in donors}
    assert {len(donor) - len(prompt.ids) for donor, prompt in zip(donors, PROMPTS, strict=True)} > {
        0
    }

    def oracle(intervention: Any, prompt: Prompt, example: int) -> torch.Tensor:
        lent = z[donors[example]]
        size = len(prompt.ids)
        return bridge_logits(
            bridge,
            prompt.ids,
            intervention.heads,
            lambda _, layer, head: lent[layer][-size:, head],
        )

    assert_same(frame, interventions, oracle)


@pytest.mark.parametrize("family", FAMILIES)
def test_scale_is_the_bridge_with_hook_z_scaled(family: str, engines: Any, bridges: Any) -> None:
    interventions: list[Intervention] = [ScaleHeads(heads, -0.5) for heads in GROUPS]
    frame = engines[family].measure(PROMPTS, interventions)
    bridge = bridges[family, False]

    def oracle(intervention: Any, prompt: Prompt, example: int) -> torch.Tensor:
        return bridge_logits(bridge, prompt.ids, intervention.heads, lambda z, *_: z * -0.5)

    assert_same(frame, interventions, oracle)


@pytest.mark.parametrize("family", FAMILIES)
def test_baseline_and_kl_are_those_of_the_unhooked_model(
    family: str, engines: Any, tiny_models: Any
) -> None:
    ablation = AblateHeads(((1, 1),))
    frame = engines[family].measure(PROMPTS, [ablation]).set_index(["intervention", "example"])
    for example, prompt in enumerate(PROMPTS):
        logits = tiny_models[family].model(torch.tensor([prompt.ids])).logits[0, -1].double()
        row = frame.loc[("baseline", example)]
        assert row.logit_diff == pytest.approx(
            (logits[prompt.target] - logits[prompt.foil]).item(), abs=ORACLE_TOLERANCE
        )
        assert (row.method, row.heads, row["layer"], row["head"]) == (
            "none",
            "",
            -1,
            -1,
        )
        assert (row.scale, row.kl) == (1.0, 0.0)
        assert frame.loc[(ablation.label, example)].kl > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tokens_a_batch", [1, 30, 10**6])
def test_a_batch_is_its_single_prompts(
    family: str, tokens_a_batch: int, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: lengths, neighbours, order and batch size do not matter."""
    interventions: list[Intervention] = [
        *(AblateHeads(((1, 2), (2, 1)), m) for m in ("zero", "zero_folded", "mean", "resample")),  # type: ignore[arg-type]
        ScaleHeads(((0, 0),), 0.5),
    ]
    bounds = engines[family].bounds._replace(batch=tokens_a_batch * 32)
    monkeypatch.setattr(engines[family], "bounds", bounds)
    monkeypatch.setattr(clean, "RECORD_NUMBERS", tokens_a_batch * 500)
    together = engines[family].measure(PROMPTS, interventions, reference=REFERENCE)
    monkeypatch.undo()
    numbers = [
        "logit_diff",
        "target_logit",
        "target_probability",
        "kl",
        "entropy",
        "target_rank",
    ]
    for example, prompt in enumerate(PROMPTS):
        alone = engines[family].measure([prompt], interventions, reference=REFERENCE)
        rows = together[together.example == example]
        np.testing.assert_allclose(
            rows[numbers].to_numpy(float),
            alone[numbers].to_numpy(float),
            atol=BATCH_TOLERANCE,
        )


def test_equal_prompts_share_rows_but_keep_their_own_figures(engines: Any) -> None:
    first = PROMPTS[0]
    swapped = Prompt(first.ids, first.foil, first.target)
    frame = engines["gpt2"].measure([first, PROMPTS[1], swapped, first], [AblateHeads(((0, 1),))])
    by = frame.pivot(index="intervention", columns="example", values="logit_diff")
    assert (by[0] == -by[2]).all() and (by[0] == by[3]).all() and (by[0] != by[1]).all()


def test_rows_are_in_the_given_order(engines: Any) -> None:
    interventions = [
        AblateHeads(((2, 1),)),
        ScaleHeads(((0, 0), (1, 3)), 0.5),
        AblateHeads(((0, 2),), "mean"),
    ]
    frame = engines["llama"].measure(PROMPTS, interventions, reference=REFERENCE)
    n = len(PROMPTS)
    labels = ["baseline", "zero:2.1", "scale0.5:0.0+1.3", "mean:0.2"]
    assert list(frame.intervention) == [label for label in labels for _ in range(n)]
    assert list(frame.example) == list(range(n)) * 4
    assert list(frame["layer"][::n]) == [-1, 2, -1, 0] and list(frame["head"][::n]) == [
        -1,
        1,
        -1,
        2,
    ]
    assert list(frame.scale[::n]) == [1.0, 0.0, 0.5, 0.0]
    assert list(frame.method[::n]) == ["none", "zero", "scale", "mean"]
    assert list(frame.granularity[::n]) == ["", "head", "head", "head"]
    assert list(frame.positions[::n]) == ["", "all", "all", "all"]
    assert set(frame.window) == {0} and set(frame.donor) == {""}
    assert " ".join(frame.columns) == (
        "intervention method heads layer head scale granularity window positions donor example "
        "logit_diff target_logit foil_logit target_probability target_rank argmax kl entropy "
        "seq_logprob_diff seq_probability seq_kl_mean"
    )
    again = engines["llama"].measure(PROMPTS, interventions, reference=REFERENCE)
    assert frame.equals(again)


@pytest.mark.parametrize("family", FAMILIES)
def test_identity_does_nothing(family: str, engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2 and P15: exactly nothing as delivered, and nothing but rounding when really run."""
    identities: list[Intervention] = [ScaleHeads(heads, 1.0) for heads in GROUPS]
    frame = engines[family].measure(PROMPTS, identities)
    figures = frame.columns[frame.columns.get_loc("logit_diff") :]
    baseline = frame[frame.intervention == "baseline"][figures]
    for _, rows in frame.groupby("intervention"):
        assert (rows[figures].to_numpy() == baseline.to_numpy()).all()
    monkeypatch.setattr(Engine, "_canonical", lambda self, intervention, _: intervention)
    run = engines[family].measure(PROMPTS, identities)
    assert (run.logit_diff - frame.logit_diff).abs().max() < BATCH_TOLERANCE
    assert (run["argmax"] == frame["argmax"]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family: str, tiny_models: Any) -> None:
    """P20: every hook and stub is gone, also after an error in mid-run."""
    model = tiny_models[family].model
    ids = torch.tensor([PROMPTS[0].ids])
    before = model(ids).logits
    engine = Engine(tiny_models[family])
    engine.measure(PROMPTS, [AblateHeads(((0, 1), (1, 1), (2, 2)))])
    with pytest.raises(IndexError):
        engine.architecture.through(
            engine.architecture.record(ids)[0], 1, torch.zeros(1, 6, 32), lambda z: z[9]
        )
    assert torch.equal(model(ids).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any("forward" in vars(m) for m in model.modules())


def test_equal_operations_are_measured_once(engines: Any, computed_rows: list[int]) -> None:
    heads = ((1, 2),)
    same = [
        AblateHeads(heads),
        AblateHeads(heads, "zero_folded"),
        ScaleHeads(heads, 0.0),
    ]
    frame = engines["mistral"].measure([*PROMPTS, *PROMPTS], same)
    assert sum(computed_rows) == len(PROMPTS)
    assert frame.groupby("example").logit_diff.nunique().max() == 2  # baseline, and one other


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_figures_are_finite_in_half_precision(dtype: str, tiny_entry: Any) -> None:
    """P14: the model may be coarse, its figures are float64, and KL does not underflow."""
    engine = Engine(load_model(tiny_entry("gpt2"), dtype=dtype))
    methods = ("zero", "zero_folded", "mean", "resample")
    interventions = [AblateHeads(((0, 1),), method) for method in methods]  # type: ignore[arg-type]
    frame = engine.measure(PROMPTS, interventions, reference=REFERENCE)
    numbers = frame.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all() and frame.logit_diff.dtype == np.float64
    assert (frame[frame.intervention != "baseline"].kl > 0).all()


def test_progress_is_on_stderr_and_off_by_default(
    engines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engines["gpt2"].measure(PROMPTS[:2], [AblateHeads(((0, 1),))])
    assert capsys.readouterr() == ("", "")
    engines["gpt2"].measure(PROMPTS[:2], [AblateHeads(((0, 1),))], progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "4/4" in err


def bad_prompt(**fields: Any) -> list[Prompt]:
    return [PROMPTS[1], PROMPTS[0]._replace(**fields)]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompts"),
        (bad_prompt(ids=()), "prompt 1 is empty"),
        (bad_prompt(ids=tuple(range(65))), "prompt 1 has 65 tokens.*context of 64"),
        (
            bad_prompt(ids=tuple(range(33))),
            "prompt 1 has 33 tokens.*sliding window of 32",
        ),
        (bad_prompt(ids=(0, VOCABULARY)), "prompt 1: token id 300 is outside"),
        (bad_prompt(target=-1), "prompt 1: token id -1 is outside"),
        (bad_prompt(target=PROMPTS[0].foil), "prompt 1: target and foil are both"),
    ],
)
def test_unusable_prompts_are_refused(engines: Any, prompts: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engines["mistral"].measure(prompts, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interventions": [AblateHeads(((0, 1),))] * 2}, "zero:0.1 is given twice"),
        (
            {"interventions": [AblateHeads(((3, 0),))]},
            "no head 3:0 .*3 layers of 4 heads",
        ),
        ({"interventions": [AblateHeads(((0, 4),))]}, "no head 0:4"),
        (
            {"interventions": [AblateHeads(((0, 1),), "mean")]},
            "mean: reference prompts are needed",
        ),
        ({"clusters": ["a"]}, "clusters has 1 names for 6 prompts"),
        ({"seed": -1}, "seed"),
        (
            {
                "interventions": [AblateHeads(((0, 1),), "resample")],
                "reference": PROMPTS[:1],
            },
            "example 0 .*no donor",
        ),
        (
            {
                "interventions": [AblateHeads(((0, 1),), "mean")],
                "reference": [Prompt((0,), 1, 2)],
            },
            "no token but BOS",
        ),
    ],
)
def test_unusable_requests_are_refused(engines: Any, arguments: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engines["gpt2"].measure(PROMPTS, **{"interventions": [], **arguments})


def test_layers_are_not_replayed_where_nothing_is_changed(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unhooked figures are the model's own; replaying took as long as measuring them."""
    engine = engines["llama"]
    hooked = engine.measure(PROMPTS, [AblateHeads(((0, 0),))])
    monkeypatch.setattr(type(engine.architecture), "through", lambda *_, **__: pytest.fail())
    unhooked = engine.measure(PROMPTS, [])
    same = hooked[hooked["method"] == "none"].reset_index(drop=True)
    pandas.testing.assert_frame_equal(unhooked, same, rtol=1e-5)


def test_a_model_that_does_more_than_its_layers_is_refused(tiny_entry: Any) -> None:
    """Soft caps (Gemma 2, Cohere) come after the unembedding; the engine would not see them."""
    loaded = load_model(tiny_entry("llama"))
    loaded.model.register_forward_hook(
        lambda module, args, out: out.__setitem__("logits", 5 * torch.tanh(out.logits / 5))
    )
    with pytest.raises(EngineError, match="random-llama.*differ from its own forward"):
        Engine(loaded).measure(PROMPTS, [])


def test_non_finite_figures_are_refused(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("llama"))
    with torch.no_grad():
        loaded.model.lm_head.weight[7, 3] = torch.inf
    with pytest.raises(EngineError, match="random-llama.*not finite"):
        Engine(loaded).measure(PROMPTS, [])


def test_a_model_that_breaks_under_ablation_names_the_example(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Engine._run

    def broken(self: Engine, chunk: Any, start: int, segments: Any) -> torch.Tensor:
        hidden = run(self, chunk, start, segments)
        hidden[0, 5] = torch.nan
        return hidden

    monkeypatch.setattr(Engine, "_run", broken)
    with pytest.raises(EngineError, match="of example 3 under zero:0.1 is not finite"):
        engines["neox"].measure(PROMPTS, [AblateHeads(((0, 1),))])


def test_a_model_in_training_mode_is_refused(tiny_entry: Any) -> None:
    loaded = load_model(tiny_entry("gpt2"))
    loaded.model.train()
    with pytest.raises(EngineError, match="training mode"):
        Engine(loaded)


def test_facts_that_are_not_the_models_are_refused(tiny_models: Any) -> None:
    loaded = tiny_models["gpt2"]
    for facts in (replace(loaded.facts, n_layers=4), replace(loaded.facts, n_heads=5)):
        with pytest.raises(EngineError, match="random-gpt2"):
            Engine(replace(loaded, facts=facts))
