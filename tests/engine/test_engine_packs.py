"""Prompts that begin alike, measured in one row, against each alone.

Run: pytest tests/engine/test_engine_packs.py
"""

from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tests.engine.test_engine_devices import FIGURES, modules, tight, written_once
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine import clean_pass as clean_module
from tinyablation.engine import engine as engine_module
from tinyablation.engine.architecture import Architecture
from tinyablation.engine.clean_pass import CleanPasses
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.engine.hook_backends import (
    BridgeHooks,
    Case,
)
from tinyablation.engine.hook_changes import Changes
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.models.bounds import SMALLEST, bounds_of
from tinyablation.models.loading import load_model

ORACLE_TOLERANCE = 1e-4  # what the engine promises; some 2e-6 seen
BATCH_TOLERANCE = 1e-5
BOS = 0


def templated() -> list[Prompt]:
    """Three wordings of four subjects; one prompt is the beginning of others, one stands twice."""
    rng = np.random.default_rng(7)

    def words(n: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(1, VOCABULARY, n))

    prompts = []
    for length in (3, 5, 6):
        wording = (BOS, *words(length))
        for _ in range(4):
            ids = (*wording, *words(int(rng.integers(1, 4))))
            target, foil = (int(token) for token in rng.choice(VOCABULARY, 2, replace=False))
            prompts.append(Prompt(ids, target, foil))
    prompts.append(Prompt(prompts[0].ids[:4], 3, 4))
    prompts.append(prompts[5]._replace(target=9, foil=8))
    return prompts


PROMPTS = templated()
REFERENCE = PROMPTS[2:]
DIRECTIONS = {"truth": torch.randn(32, generator=torch.Generator().manual_seed(0))}
HEADS = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
# All that do the same to every prompt.
ALIKE: list[Intervention] = [
    *(AblateHeads((head,)) for head in HEADS),
    *(
        AblateHeads(heads, method)  # type: ignore[arg-type]
        for heads in (((0, 1),), ((1, 3),), ((2, 2),), ((0, 1), (0, 3)), ((0, 0), (1, 1), (2, 3)))
        for method in ("zero_folded", "mean")
    ),
    ScaleHeads(((0, 0), (2, 1)), -0.5),
    *(PatchPath(((0, 1),), layer, "zero") for layer in range(1, N_LAYERS + 1)),
    PatchPath(((1, 0), (1, 2)), N_LAYERS, "mean"),
    *(Steer(layer, "truth", 0.5) for layer in range(N_LAYERS)),
]
BORROWING: list[Intervention] = [
    AblateHeads(((0, 1),), "resample"),
    PatchHeads(((1, 2),), "last"),
    PatchResidual(1, 0, "all"),
]
GIVEN: dict[str, Any] = {"reference": REFERENCE, "directions": DIRECTIONS}
PAIRED = {
    **GIVEN,
    "pairs": [prompt._replace(ids=(BOS, *prompt.ids[:0:-1])) for prompt in PROMPTS],
    "donors": [(BOS, *range(n + 1, n + 12)) for n in range(len(PROMPTS))],
}


def assert_same(found: Any, expected: Any) -> None:
    assert found[["intervention", "example"]].equals(expected[["intervention", "example"]])
    np.testing.assert_allclose(found[FIGURES], expected[FIGURES], rtol=0, atol=BATCH_TOLERANCE)
    assert (found["argmax"] == expected["argmax"]).all()
    # Two logits of a random model may lie within rounding of each other.
    off = (found["target_rank"] - expected["target_rank"]).abs()
    assert off.max() <= 1 and off.sum() <= 3


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of clean passes that are made from here on."""
    made: list[str] = []
    for name in ("visit", "visit_packs"):
        plain = getattr(CleanPasses, name)

        def counting(*args: Any, plain: Any = plain, name: str = name) -> None:
            made.append(name)
            plain(*args)

        monkeypatch.setattr(CleanPasses, name, counting)
    return made


def by_length(engine: Engine, monkeypatch: pytest.MonkeyPatch, *args: Any, **given: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(clean_module, "LEAST_SHARING", np.inf)
        return engine.measure(*args, **given)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_is_its_prompts_alone(family: str, engines: Any, visits: list[str]) -> None:
    engine = engines[family]
    frame = engine.measure(PROMPTS, ALIKE, **GIVEN)
    assert visits == ["visit_packs"]
    wide = frame.pivot(index="intervention", columns="example", values="logit_diff")
    backend = BridgeHooks(engine.loaded)
    ids = [prompt.ids for prompt in REFERENCE]
    changes = Changes(backend, reference=ids, bos_id=BOS, directions=DIRECTIONS)
    cases = [Case(prompt.ids, prompt.target, prompt.foil, {}) for prompt in PROMPTS]
    for example, case in enumerate(cases):
        found = wide.at["baseline", example]
        assert found == pytest.approx(changes.clean(case), abs=ORACLE_TOLERANCE)
    for n, intervention in enumerate(ALIKE):
        # Two each, so that every prompt meets five of them: all with all take 20 s a family.
        for example in (n % len(PROMPTS), (5 * n + 3) % len(PROMPTS)):
            found = wide.at[intervention.label, example]
            expected = changes.changed(cases[example], intervention)
            assert found == pytest.approx(expected, abs=ORACLE_TOLERANCE), intervention.label
    assert (wide - wide.loc["baseline"]).abs().max(axis=1).sort_values().iloc[5] > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_the_unhooked_model_is_packed_where_nothing_else_is_measured(
    family: str, engines: Any, visits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_length(engines[family], monkeypatch, PROMPTS, [])
    assert_same(engines[family].measure(PROMPTS, []), expected)
    assert visits == ["visit", "visit_packs"]


@pytest.mark.parametrize(
    ("family", "nodes"),
    [*((family, 12) for family in FAMILIES), ("gpt2", 1), ("gpt2", 1024)],
)
def test_all_figures_are_those_of_batches_of_one_length(
    family: str,
    nodes: int,
    engines: Any,
    visits: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = [*BORROWING[:1], *ALIKE, *BORROWING[1:]]
    expected = by_length(engines[family], monkeypatch, PROMPTS, every, **PAIRED)
    assert visits == ["visit"]
    bounds = engines[family].bounds._replace(pack_nodes=nodes)
    monkeypatch.setattr(engines[family], "bounds", bounds)
    check = written_once(monkeypatch)
    found = engines[family].measure(PROMPTS, every, **PAIRED)
    check()
    assert visits == ["visit", "visit_packs", "visit"]
    assert_same(found, expected)


def test_figures_with_a_gpus_bounds_are_those_of_a_cpu(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [*BORROWING[:1], *ALIKE[::2]]
    expected = engines["mistral"].measure(PROMPTS, every, **PAIRED)
    assert engines["mistral"].bounds == SMALLEST
    monkeypatch.setattr(engines["mistral"], "bounds", bounds_of("cuda", 200 * 2**30))
    assert_same(engines["mistral"].measure(PROMPTS, every, **PAIRED), expected)


@pytest.mark.parametrize(
    "family",
    [
        "gpt2",
        "llama",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("mistral", "neox")),
    ],
)
def test_fused_attention_gives_the_same_figures(
    family: str, engines: Any, tiny_entry: Any, visits: list[str]
) -> None:
    """Eager attention alone always receives a mask; a row without one is causal to the fused."""
    every = [*BORROWING[:1], *ALIKE, *BORROWING[1:]]
    expected = engines[family].measure(PROMPTS, every, **PAIRED)
    loaded = load_model(tiny_entry(family))
    loaded.model.set_attn_implementation("sdpa")
    assert_same(Engine(loaded).measure(PROMPTS, every, **PAIRED), expected)
    assert visits == ["visit_packs", "visit"] * 2


def test_few_logits_at_once_make_small_packs(engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engines["llama"].measure(PROMPTS, ALIKE, **GIVEN)
    bounds = engines["llama"].bounds._replace(logits=3 * VOCABULARY)
    monkeypatch.setattr(engines["llama"], "bounds", bounds)
    monkeypatch.setattr(engine_module, "FIGURE_NUMBERS", 2 * VOCABULARY)
    assert_same(engines["llama"].measure(PROMPTS, ALIKE, **GIVEN), expected)


@pytest.mark.parametrize("place", ["clean", "rows", "unembedding"])
def test_where_memory_runs_out_the_table_is_the_same(
    place: str, tiny_models: Any, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engines["gpt2"].measure(PROMPTS, ALIKE, **GIVEN)
    engine = Engine(tiny_models["gpt2"])
    module, limit = modules(engine)[place]
    # A pack is one row, and its prompts are rows for the vocabulary; the first try is of 3 alone.
    limits = {"clean": 1, "rows": limit - 2, "unembedding": limit + 1}
    check = written_once(monkeypatch)
    with tight(module, limits[place]) as found:
        table = engine.measure(PROMPTS, ALIKE, **GIVEN)
    check()
    assert_same(table, expected)
    assert engine.room.halvings == len(found.refused)
    assert place == "clean" or found.refused


def test_prompts_with_little_in_common_are_not_packed(engines: Any, visits: list[str]) -> None:
    alone = [p._replace(ids=(n + 1, *p.ids[1:])) for n, p in enumerate(PROMPTS)]
    engines["gpt2"].measure(alone, ALIKE[:2])
    assert visits == ["visit"]


def heeding_only(name: str, patch: pytest.MonkeyPatch) -> None:
    recorded = Architecture.recorded

    def less(self: Architecture, ids: Any, kept: Any, layout: Any) -> Any:
        inputs = {name: layout.inputs[name]}
        return recorded(self, ids, kept, layout._replace(inputs=inputs))

    patch.setattr(Architecture, "recorded", less)


def mask_not_heeded(patch: pytest.MonkeyPatch) -> None:
    heeding_only("position_ids", patch)


def positions_not_heeded(patch: pytest.MonkeyPatch) -> None:
    heeding_only("attention_mask", patch)


def mask_not_taken(patch: pytest.MonkeyPatch) -> None:
    def refusing(self: Architecture, *args: Any) -> Any:
        raise ValueError("The mask must have two dimensions")

    patch.setattr(Architecture, "recorded", refusing)


@pytest.mark.parametrize("fault", [mask_not_heeded, positions_not_heeded, mask_not_taken])
def test_a_model_that_computes_something_else_in_a_pack_is_not_given_any(
    fault: Any, tiny_models: Any, visits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_length(Engine(tiny_models["mistral"]), monkeypatch, PROMPTS, ALIKE, **GIVEN)
    fault(monkeypatch)
    found = Engine(tiny_models["mistral"]).measure(PROMPTS, ALIKE, **GIVEN)
    assert visits == ["visit", "visit"]
    assert_same(found, expected)


def test_each_pack_is_checked(tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tiny_models["neox"])
    assert engine.passes.can_pack([prompt.ids for prompt in PROMPTS])
    mask_not_heeded(monkeypatch)
    with pytest.raises(EngineError, match=r"'random-neox': packed .* other logits than alone"):
        engine.measure(PROMPTS, ALIKE, **GIVEN)


def test_unhooked_the_longest_prompt_is_compared(
    tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only in the pack that holds it: a pass for each would cost a tenth or more of the time.

    Packs are twice as large as where something is changed.
    """
    engine = Engine(tiny_models["neox"])
    engine.bounds = engine.bounds._replace(pack_nodes=8)
    alone: list[tuple[int, ...]] = []
    nodes: list[int] = []
    plain, visit = Architecture.own, CleanPasses.visit_packs

    def visited(self: CleanPasses, *given: Any, **options: Any) -> None:
        nodes.append(given[3])
        visit(self, *given, **options)

    monkeypatch.setattr(CleanPasses, "visit_packs", visited)
    engine.measure(PROMPTS, ALIKE, **GIVEN)
    assert nodes == [8]

    def noting(self: Architecture, ids: Any) -> Any:
        alone.extend(tuple(row) for row in ids.tolist())
        return plain(self, ids)

    assert engine.passes.can_pack([prompt.ids for prompt in PROMPTS])
    monkeypatch.setattr(Architecture, "own", noting)
    engine.measure(PROMPTS, [])
    assert nodes == [8, 16]
    assert alone == [max((prompt.ids for prompt in PROMPTS), key=len)]
    mask_not_heeded(monkeypatch)
    with pytest.raises(EngineError, match=r"'random-neox': packed .* other logits than alone"):
        engine.measure(PROMPTS, [])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_packed_too(dtype: str, tiny_entry: Any, visits: list[str]) -> None:
    engine = Engine(load_model(tiny_entry("llama"), dtype=dtype))
    frame = engine.measure(PROMPTS, ALIKE, **GIVEN)
    assert visits == ["visit_packs"]
    assert np.isfinite(frame[FIGURES]).all(axis=None)
