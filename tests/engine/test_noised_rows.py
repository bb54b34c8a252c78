"""Noise on a subject's embeddings, and clean states restored after it.

Run: pytest tests/engine/test_noised_rows.py
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts, run_cached, run_hooked
from tests.conftest import FAMILIES, N_LAYERS
from tinyablation.engine import noised_rows
from tinyablation.engine.architecture import Architecture
from tinyablation.engine.embedding_noise import EmbeddingNoise, embedding_spread
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.engine.hook_backends import BridgeHooks, Case, PlainHooks
from tinyablation.engine.hook_changes import Changes
from tinyablation.interventions.restoration import (
    PARTS,
    TOKENS,
    AddNoise,
    RestoreState,
    token_of,
)
from tinyablation.interventions.sites import Part

SAME = 2e-5  # logits: float32 sums in another order
PROMPTS = make_prompts([6, 9, 6])
SUBJECTS = [(1, 3), (2,), (4, 5)]  # the last one ends its prompt
# The same prompt with another subject, and wholly as before.
PROMPTS += [PROMPTS[0], PROMPTS[1]]
SUBJECTS += [(2,), (2,)]
REFERENCE = make_prompts([5, 8, 5], seed=1)
GIVEN: dict[str, Any] = {"reference": REFERENCE, "subjects": SUBJECTS, "seed": 3}
NOISES = [AddNoise(), AddNoise(1), AddNoise(0, 0.5)]
RESTORED = [
    RestoreState(draw, 3.0, part, layer, window, where)
    for draw in (0, 1)
    for part in PARTS
    for layer in range(N_LAYERS)
    for window in (0, 1)
    for where in TOKENS
]


def differences(engine: Any, interventions: Any, **given: Any) -> Any:
    table = engine.measure(PROMPTS, interventions, **{**GIVEN, **given})
    return table.pivot(index="intervention", columns="example", values="logit_diff")


@pytest.fixture(scope="module")
def measured(engines: Any) -> Any:
    """All of them, by family."""
    return cache(lambda family: differences(engines[family], [*NOISES, *RESTORED]))


first_family = pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES[1:])]
)


def by_hand(bridge: Any, engine: Any, intervention: AddNoise, example: int) -> float:
    """One prompt alone, by a bridge's hooks: its embeddings changed, its clean states put back."""
    prompt, subject = PROMPTS[example], SUBJECTS[example]
    tokens = torch.tensor([token for each in REFERENCE for token in each.ids[1:]])  # without BOS
    sigma = engine.loaded.model.get_input_embeddings()(tokens).double().std(correction=0).item()
    noise = EmbeddingNoise(sigma, GIVEN["seed"])(prompt.ids, subject, intervention.noise, 32)

    def corrupt(embedded: torch.Tensor) -> torch.Tensor:
        embedded[0, list(subject)] += torch.from_numpy(noise).float()
        return embedded

    hooks: dict[str, Any] = {"hook_embed": corrupt}
    if isinstance(intervention, RestoreState):
        clean = run_cached(bridge, prompt.ids)
        place = token_of(intervention.where, subject, len(prompt.ids))
        hook = {"stream": "resid_pre", "attention": "attn_out", "mlp": "mlp_out"}[intervention.part]
        around = range(-intervention.window, intervention.window + 1)
        for layer in {intervention.layer + off for off in around} & set(range(N_LAYERS)):
            name = f"blocks.{layer}.hook_{hook}"

            def restore(value: torch.Tensor, name: str = name) -> torch.Tensor:
                value[0, place] = clean[name][0, place]
                return value

            hooks[name] = restore
    logits = run_hooked(bridge, prompt.ids, hooks)
    return (logits[prompt.target] - logits[prompt.foil]).item()


@first_family
def test_rows_are_one_prompt_alone_with_its_states_put_back(
    family: str, measured: Any, bridges: Any, engines: Any
) -> None:
    found = measured(family)
    for intervention in [*NOISES, *RESTORED[::7]]:
        for example in range(3):
            due = by_hand(bridges[family, False], engines[family], intervention, example)
            where = f"{intervention.label}, example {example}"
            assert found.loc[intervention.label, example] == pytest.approx(due, abs=SAME), where
    corrupted = found.loc[NOISES[0].label]
    assert (corrupted - found.loc["baseline"]).abs().min() > 100 * SAME
    labels = [each.label for each in RESTORED if each.draw == 0]
    moved = (found.loc[labels] - corrupted).abs().max(axis=1) > 10 * SAME
    assert moved.mean() > 0.7  # at a last token that is no subject, early states are clean already


@pytest.mark.slow
@pytest.mark.parametrize("make", [PlainHooks, BridgeHooks])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_what_both_ways_to_hook_say(
    family: str, make: Any, measured: Any, tiny_models: Any
) -> None:
    ids = [each.ids for each in REFERENCE]
    changes = Changes(make(tiny_models[family]), reference=ids, bos_id=0, seed=3)
    for intervention in [*NOISES, *RESTORED]:
        for example, (prompt, subject) in enumerate(zip(PROMPTS, SUBJECTS, strict=True)):
            case = Case(prompt.ids, prompt.target, prompt.foil, {}, subject)
            due = changes.changed(case, intervention)
            found = measured(family).loc[intervention.label, example]
            assert found == pytest.approx(due, abs=SAME), (intervention.label, example)


@first_family
def test_what_restores_everything_and_what_restores_nothing(family: str, measured: Any) -> None:
    """A subject of one token: its embedding put back is the clean run; a last state is the end."""
    found = measured(family)
    whole = RestoreState(0, 3.0, "stream", 0, 0, "subject-last").label
    one_token = [1, 3, 4]
    clean = found.loc["baseline", one_token]
    np.testing.assert_allclose(found.loc[whole, one_token], clean, atol=SAME)
    assert (found.loc[whole, [0, 2]] - found.loc["baseline", [0, 2]]).abs().min() > 100 * SAME
    # After the last layer's attention a token that is not the last has no way to the logits.
    for part in ("attention", "mlp"):
        late = RestoreState(0, 3.0, part, N_LAYERS - 1, 0, "subject-first").label
        others = [0, 1, 2, 3]
        corrupted = found.loc[NOISES[0].label, others]
        np.testing.assert_allclose(found.loc[late, others], corrupted, atol=SAME)


def test_draws_are_of_the_seed_and_of_the_prompt_alone(engines: Any) -> None:
    engine, noises = engines["llama"], NOISES[:2]
    found = differences(engine, noises)
    again = engine.measure(
        PROMPTS[1:2], noises, reference=REFERENCE, subjects=SUBJECTS[1:2], seed=3
    )
    np.testing.assert_allclose(again.logit_diff, found[1].loc[again.intervention], atol=SAME)
    assert (found.loc[noises[0].label] - found.loc[noises[1].label]).abs().min() > 10 * SAME
    other = differences(engine, noises, seed=4)
    assert (found - other).drop(index="baseline").abs().min().min() > 10 * SAME
    assert (found[1] == found[4]).all()  # the same prompt and subject
    assert abs(found.loc[noises[0].label, 0] - found.loc[noises[0].label, 3]) > 10 * SAME


def test_noise_is_three_times_the_spread_of_embeddings() -> None:
    drawn = EmbeddingNoise(0.5, 0)((1, 2, 3), (0, 2), AddNoise(), 20_000)
    assert drawn.shape == (2, 20_000)
    assert drawn.std() == pytest.approx(1.5, rel=0.02) and abs(drawn.mean()) < 0.03
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.03


@first_family
def test_the_spread_is_that_of_the_reference_without_bos(family: str, engines: Any) -> None:
    engine = engines[family]
    own = engine.loaded, engine.architecture, engine.room
    ids = [each.ids for each in REFERENCE]
    rows = engine.loaded.model.get_input_embeddings().weight
    tokens = [token for each in [*ids, ids[0]] for token in each[1:]]
    due = rows[tokens].double().std(correction=0).item()
    spread = embedding_spread(*own, [*ids, ids[0]])
    assert spread == pytest.approx(due, rel=1e-9)
    with pytest.raises(EngineError, match="no token but BOS"):
        embedding_spread(*own, [(0,)])


@pytest.mark.parametrize("numbers", [1, 2**9])
def test_rows_do_not_depend_on_the_batch(
    numbers: int, measured: Any, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [*NOISES, *RESTORED[::9]]
    bounds = engines["gpt2"].bounds._replace(batch=numbers)
    monkeypatch.setattr(engines["gpt2"], "bounds", bounds)
    monkeypatch.setattr(noised_rows, "RECORD_NUMBERS", numbers)
    found = differences(engines["gpt2"], some)
    np.testing.assert_allclose(found, measured("gpt2").loc[found.index], atol=SAME)


@pytest.mark.slow  # freeing memory takes a second
def test_where_memory_runs_out_fewer_rows_are_computed_at_once(
    measured: Any, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    through = Architecture.through

    def tight(self: Any, calls: Any, layer: int, hidden: torch.Tensor, **given: Any) -> Any:
        if len(hidden) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return through(self, calls, layer, hidden, **given)

    monkeypatch.setattr(Architecture, "through", tight)
    engine = Engine(tiny_models["gpt2"])
    found = differences(engine, [*NOISES, *RESTORED[::9]])
    assert engine.room.halvings > 0
    np.testing.assert_allclose(found, measured("gpt2").loc[found.index], atol=SAME)


class Interrupted(Exception):
    """Stands for whatever ends a measurement in the middle."""


def test_hooks_are_gone_afterwards_and_after_an_error(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines["neox"]
    model, ids = engine.loaded.model, torch.tensor([PROMPTS[0].ids])
    before = model(ids).logits

    def clean() -> bool:
        left = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        return not left and torch.equal(model(ids).logits, before)

    differences(engine, [*NOISES[:1], *RESTORED[::25]])
    assert clean()

    def interrupt(self: Any, site: Any, rows: Any) -> Any:
        if site.part == Part.MLP and site.layer == 1:
            raise Interrupted

    monkeypatch.setattr(noised_rows.NoisedRows, "_putting_back", interrupt)
    with pytest.raises(Interrupted):
        differences(engine, RESTORED[:2])
    assert clean()


def test_noise_that_cannot_be_made_is_refused(engines: Any) -> None:
    with pytest.raises(EngineError, match="noise: reference prompts are needed"):
        differences(engines["gpt2"], NOISES, reference=None)
    with pytest.raises(EngineError, match="acts on the subject's tokens"):
        differences(engines["gpt2"], NOISES, subjects=None)
    with pytest.raises(EngineError, match="has no layer 3"):
        differences(engines["gpt2"], [RestoreState(layer=3)])
