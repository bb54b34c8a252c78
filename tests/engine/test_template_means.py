"""Heads replaced by their mean over prompts of one template, and circuits alone.

Run: pytest tests/engine/test_template_means.py
"""

from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts, run_cached, run_hooked
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS
from tinyablation.corpora.answers import Span
from tinyablation.engine import clean_pass
from tinyablation.engine.architecture import Architecture
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.engine.hook_backends import Case, PlainHooks
from tinyablation.engine.hook_changes import Changes
from tinyablation.engine.spans import measure_spans
from tinyablation.heads import Head
from tinyablation.interventions.batteries import all_but
from tinyablation.interventions.interventions import AblateHeads, KeepHeads

SAME = 2e-5  # logits: float32 sums in another order
PROMPTS = make_prompts([6, 9, 6, 6])
# Two prompts share a group; the third has a prompt twice, which counts twice; the last has one.
GROUP = tuple(each.ids for each in make_prompts([6, 6, 6], seed=4))
TEMPLATES = [
    GROUP,
    tuple(each.ids for each in make_prompts([9, 9], seed=5)),
    (*GROUP[:2], GROUP[0]),
    GROUP[:1],
]
CIRCUIT = [Head(0, 1), Head(2, 3)]
KNOCKOUTS = [
    AblateHeads(((1, 2),), "template_mean"),
    AblateHeads(((0, 1), (0, 3), (2, 0)), "template_mean"),
    AblateHeads(tuple(CIRCUIT), "template_mean"),
    all_but(CIRCUIT, N_LAYERS, N_HEADS, "template_mean"),
]


def differences(engine: Any, prompts: Any, interventions: Any, **given: Any) -> Any:
    table = engine.measure(prompts, interventions, **given)
    return table.pivot(index="intervention", columns="example", values="logit_diff")


@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES[1:])]
)
def test_heads_are_replaced_by_means_at_each_position(
    family: str, engines: Any, bridges: Any, tiny_models: Any
) -> None:
    """By a bridge's own activations, averaged by hand; and by plain hooks, one prompt alone."""
    found = differences(engines[family], PROMPTS, KNOCKOUTS, templates=TEMPLATES)
    changes = Changes(PlainHooks(tiny_models[family]))
    bridge = bridges[family, False]
    for example, (prompt, group) in enumerate(zip(PROMPTS, TEMPLATES, strict=True)):
        caches = [run_cached(bridge, ids) for ids in group]
        case = Case(prompt.ids, prompt.target, prompt.foil, {}, (), group)
        for knockout in KNOCKOUTS:

            def put(layer: int, caches: Any = caches, knockout: Any = knockout) -> Any:
                name = f"blocks.{layer}.attn.hook_z"
                mean = torch.stack([cache[name][0] for cache in caches]).mean(dim=0)
                own = [head for at, head in knockout.heads if at == layer]

                def edit(z: torch.Tensor) -> torch.Tensor:
                    z[0, :, own] = mean[:, own]
                    return z

                return edit

            layers = {layer for layer, _ in knockout.heads}
            hooks = {f"blocks.{layer}.attn.hook_z": put(layer) for layer in layers}
            logits = run_hooked(bridge, prompt.ids, hooks)
            due = (logits[prompt.target] - logits[prompt.foil]).item()
            assert found.loc[knockout.label, example] == pytest.approx(due, abs=SAME)
            assert changes.changed(case, knockout) == pytest.approx(due, abs=SAME)
    moved = (found - found.loc["baseline"]).abs().drop(index="baseline")
    assert (moved.max(axis=1) > 100 * SAME).all()


def test_a_mean_over_one_prompt_is_that_prompts_own_and_over_itself_nothing(engines: Any) -> None:
    engine, heads = engines["llama"], ((0, 2), (1, 0))
    mean, lent = AblateHeads(heads, "template_mean"), AblateHeads(heads, "resample")
    donors = [group[0] for group in TEMPLATES]
    both = differences(
        engine,
        PROMPTS,
        [mean, lent],
        reference=PROMPTS,
        donors=donors,
        templates=[(donor,) for donor in donors],
    )
    assert (both.loc[mean.label] == both.loc[lent.label]).all()
    itself = differences(engine, PROMPTS, [mean], templates=[(each.ids,) * 3 for each in PROMPTS])
    np.testing.assert_allclose(itself.loc[mean.label], itself.loc["baseline"], atol=SAME)


def test_means_are_the_same_however_much_is_held_at_once(
    engines: Any, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = differences(engines["gpt2"], PROMPTS, KNOCKOUTS, templates=TEMPLATES)
    monkeypatch.setattr(clean_pass, "RECORD_NUMBERS", 1)
    parts = differences(Engine(tiny_models["gpt2"]), PROMPTS, KNOCKOUTS, templates=TEMPLATES)
    np.testing.assert_allclose(parts, whole, atol=SAME)


@pytest.mark.slow  # freeing memory takes a second
def test_where_memory_runs_out_fewer_prompts_are_averaged_at_once(
    engines: Any, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = differences(engines["gpt2"], PROMPTS, KNOCKOUTS, templates=TEMPLATES)
    clean = Architecture.clean

    def tight(self: Any, ids: torch.Tensor, *given: Any, **options: Any) -> Any:
        if len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clean(self, ids, *given, **options)

    monkeypatch.setattr(Architecture, "clean", tight)
    engine = Engine(tiny_models["gpt2"])
    parts = differences(engine, PROMPTS, KNOCKOUTS, templates=TEMPLATES)
    assert engine.room.halvings > 0
    np.testing.assert_allclose(parts, whole, atol=SAME)


def test_means_are_computed_once(engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From shard to shard, and for every example of the template."""
    engine, group = engines["neox"], tuple(each.ids for each in make_prompts([6] * 5, seed=9))
    rows: list[int] = []
    clean = Architecture.clean

    def counting(self: Any, ids: Any, *given: Any, **options: Any) -> Any:
        rows.append(len(ids))
        return clean(self, ids, *given, **options)

    monkeypatch.setattr(Architecture, "clean", counting)
    prompts = [PROMPTS[0], PROMPTS[2]]
    for knockouts in ([KNOCKOUTS[0]], [KNOCKOUTS[3]]):
        engine.measure(prompts, knockouts, templates=[group] * 2)
    assert rows.count(len(group)) == 1


def test_templates_that_cannot_be_averaged_are_refused(engines: Any) -> None:
    measure = engines["gpt2"].measure
    for templates, message in (
        (None, "needs templates="),
        (TEMPLATES[:2], "2 entries for 4 examples"),
        ([*TEMPLATES[:3], ()], r"example 3 has 6 tokens.*no such prompts"),
        ([*TEMPLATES[:3], TEMPLATES[1]], r"example 3 has 6 tokens.*have \[9\]"),
        ([*TEMPLATES[:3], ((0, 1, 2, 3, 4, 10**6),)], "template prompt 5.*outside the vocabulary"),
    ):
        with pytest.raises(EngineError, match=message):
            measure(PROMPTS, KNOCKOUTS[:1], templates=templates)


def test_longer_answers_continue_the_prompts_of_their_template(engines: Any) -> None:
    """log p of each token of an answer, measured as a prompt of its own."""
    engine, (knockout, *_) = engines["mistral"], KNOCKOUTS
    (first, *_), group = PROMPTS, TEMPLATES[0]
    span = Span(first.ids, (7, 8), (9,))
    table = measure_spans(engine, [span], [knockout], templates=[group])
    row = table[table.intervention == knockout.label].iloc[0]
    logs = []
    for given, token in (((), 7), ((7,), 8)):
        prompt = first._replace(ids=(*first.ids, *given), target=token, foil=1)
        longer = [tuple((*ids, *given) for ids in group)]
        figures = engine.measure([prompt], [knockout], templates=longer).iloc[1]
        logs.append(np.log(figures.target_probability))
    assert row.seq_probability == pytest.approx(np.exp(sum(logs)), rel=1e-5)


def test_a_circuit_alone_is_every_other_head_replaced() -> None:
    alone = all_but(CIRCUIT, N_LAYERS, N_HEADS, "zero")
    assert isinstance(alone, KeepHeads) and alone.label == "zero:all-but:0.1+2.3"
    every = {Head(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)}
    assert set(alone.heads) == every - set(CIRCUIT) and alone.columns.heads == alone.heads
