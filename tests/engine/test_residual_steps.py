"""Step norms and spread, against one prompt alone in a TransformerBridge.

Run: pytest tests/engine/test_residual_steps.py
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.bridging import bridge_of
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.engine.residual_steps import (
    activation_spread,
    measure_geometry,
    spread_difference,
    step_norms,
)
from tinyablation.heads import heads_label
from tinyablation.interventions.sites import InterventionError
from tinyablation.models.loading import load_model
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import DegenerateInterval, generator

PROPERTIES = settings(max_examples=40, deadline=None, derandomize=True, database=None)
# fp32 sums in another order, as in test_engine.
ORACLE_TOLERANCE = 1e-4
PAD = 0


def make_prompts(lengths: list[int], *, bos: bool = True, seed: int = 0) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    prompts = []
    for length in lengths:
        ids = [int(token) for token in rng.integers(1, VOCABULARY, length)]
        prompts.append(Prompt((0, *ids[1:]) if bos else tuple(ids), 7, 8))
    return prompts


PROMPTS = [*make_prompts([6, 9, 6, 4, 11]), *make_prompts([5, 9], bos=False, seed=1)]
PROMPTS.append(PROMPTS[1])  # a prompt given twice is measured once and reported twice


def sets_of(layer: int) -> list[tuple[tuple[int, int], ...]]:
    return [((layer, 0),), ((layer, 3),), ((layer, 0), (layer, 1), (layer, 2))]


@pytest.fixture(scope="module")
def engines(tiny_models: dict[str, Any]) -> dict[str, Engine]:
    return {family: Engine(model) for family, model in tiny_models.items()}


@pytest.fixture(scope="module")
def bridges(tiny_entry: Callable[..., Any]) -> dict[str, Any]:
    """A bridge each, around models of their own."""
    return {family: bridge_of(load_model(tiny_entry(family))) for family in FAMILIES}


def bridge_streams(bridge: Any, layer: int, heads: Any) -> list[np.ndarray]:
    """resid_post [positions, d_model] of each prompt alone, hook_z of the heads zeroed."""
    found: list[torch.Tensor] = []

    def zero(z: torch.Tensor, hook: Any = None) -> torch.Tensor:
        z = z.clone()
        z[:, :, [head for _, head in heads]] = 0.0
        return z

    def keep(stream: torch.Tensor, hook: Any = None) -> None:
        found.append(stream[0].double())

    hooks: list[Any] = [(f"blocks.{layer}.hook_resid_post", keep)]
    if heads:
        hooks.append((f"blocks.{layer}.attn.hook_z", zero))
    with torch.no_grad():
        for prompt in PROMPTS:
            bridge.run_with_hooks(torch.tensor([prompt.ids]), fwd_hooks=hooks, prepend_bos=False)
    return [stream.numpy() for stream in found]


# --- step norms ----------------------------------------------------------------------------------


def test_a_step_norm_is_the_distance_between_neighbouring_tokens():
    residual = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3.0, -1.0]])
    assert step_norms(residual).tolist() == [5.0, 0.0, 5.0]
    assert step_norms(np.stack([residual, 2 * residual])).tolist() == [[5, 0, 5], [10, 0, 10]]
    assert step_norms(residual, from_bos=True).tolist() == [0.0, 5.0]


@PROPERTIES
@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(0, 5))
def test_padding_never_counts_whatever_it_holds(seed, length, pads):
    rng = generator(seed, "pads")
    real = rng.normal(size=(length, 3))
    padded = np.concatenate([real, np.full((pads, 3), np.nan)])
    assert step_norms(padded, length=length).tolist() == step_norms(real).tolist()


@PROPERTIES
@given(st.integers(0, 2**32), st.floats(0.01, 100.0))
def test_step_norms_know_no_direction_or_origin_and_scale_with_the_unit(seed, factor):
    rng = generator(seed, "turn")
    residual = rng.normal(size=(6, 4))
    turned = factor * residual @ stats.ortho_group.rvs(4, random_state=rng) + rng.normal(size=4)
    assert step_norms(turned) == pytest.approx(factor * step_norms(residual), rel=1e-9)


@pytest.mark.parametrize(
    ("residual", "options", "message"),
    [
        ([[1.0, 2.0]], {}, "no step"),
        ([[1.0], [2.0]], {"from_bos": True}, "the first a BOS"),
        ([1.0, 2.0], {}, "shape"),
        ([[1.0], [2.0]], {"length": 3}, "length 3"),
        ([[1.0], [2.0]], {"length": 0}, "length 0"),
        ([[1.0], [np.inf]], {}, "finite"),
    ],
)
def test_what_makes_no_step_is_refused(residual, options, message):
    with pytest.raises(StatisticsError, match=message):
        step_norms(residual, **options)


# --- measuring -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, N_LAYERS - 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_geometry_is_that_of_each_prompt_alone_under_a_hook(engines, bridges, family, layer):
    sets = sets_of(layer)
    found = measure_geometry(engines[family], PROMPTS, sets, layer, vectors_of=[(), sets[2]])
    assert len(found.table) == (len(sets) + 1) * len(PROMPTS)
    assert list(found.vectors) == ["", heads_label(sets[2])]
    for heads in [(), *sets]:
        rows = found.table[found.table["heads"] == heads_label(heads)].reset_index(drop=True)
        assert rows["example"].tolist() == list(range(len(PROMPTS)))
        streams = bridge_streams(bridges[family], layer, heads)
        for example, (prompt, stream) in enumerate(zip(PROMPTS, streams, strict=True)):
            steps = np.linalg.norm(stream[1:] - stream[:-1], axis=1)[prompt.ids[0] == 0 :]
            assert rows["steps"][example] == len(steps)
            for column, expected in (
                ("step_norm", steps.mean()),
                ("step_norm_early", steps[:5].mean()),
            ):
                assert rows[column][example] == pytest.approx(expected, abs=ORACLE_TOLERANCE)
        if heads_label(heads) in found.vectors:
            last = np.stack([stream[-1] for stream in streams])
            vectors = found.vectors[heads_label(heads)]
            assert vectors == pytest.approx(last, abs=ORACLE_TOLERANCE)


def test_zeroing_heads_moves_the_step_norm_far_more_than_the_tolerance(engines):
    table = measure_geometry(engines["gpt2"], PROMPTS, sets_of(0), 0).table
    wide = table.pivot(index="example", columns="heads", values="step_norm")
    change = wide.sub(wide[""], axis=0).drop(columns="").abs()
    assert (change.max() > 100 * ORACLE_TOLERANCE).all()


def test_the_number_of_pads_never_matters(engines):
    plain = measure_geometry(engines["gpt2"], PROMPTS, sets_of(0), 0, vectors_of=[()])
    lengths = [len(prompt.ids) for prompt in PROMPTS]
    padded = [
        prompt._replace(ids=(*prompt.ids, *[PAD] * (3 * example % 7)))
        for example, prompt in enumerate(PROMPTS)
    ]
    cut = measure_geometry(engines["gpt2"], padded, sets_of(0), 0, lengths=lengths, vectors_of=[()])
    assert cut.table.equals(plain.table)
    assert np.array_equal(cut.vectors[""], plain.vectors[""])
    # The pitfall itself: pads taken for tokens change the figure.
    taken = measure_geometry(engines["gpt2"], padded, [], 0).table
    assert not np.allclose(taken["step_norm"], plain.table["step_norm"][: len(PROMPTS)], atol=0.01)


def test_the_step_from_bos_is_left_out_and_only_that_one(engines):
    prompt = PROMPTS[0]
    other = prompt._replace(ids=(5, *prompt.ids[1:]))
    table = measure_geometry(engines["gpt2"], [prompt, other], [], 0).table
    assert table["steps"].tolist() == [len(prompt.ids) - 2, len(prompt.ids) - 1]


def test_small_batches_give_the_same(engines, monkeypatch):
    whole = measure_geometry(engines["llama"], PROMPTS, sets_of(1), 1).table
    monkeypatch.setattr("tinyablation.engine.residual_steps.ROWS_NUMBERS", 1)
    single = measure_geometry(engines["llama"], PROMPTS, sets_of(1), 1).table
    assert single["step_norm"].to_numpy() == pytest.approx(whole["step_norm"], abs=1e-5)


@pytest.mark.parametrize(
    ("sets", "layer", "options", "error", "message"),
    [
        ([((1, 0),)], 0, {}, EngineError, "1:0 is not a head of layer 0"),
        ([((0, N_HEADS),)], 0, {}, EngineError, f"0:{N_HEADS} is not a head"),
        ([], N_LAYERS, {}, EngineError, f"no layer {N_LAYERS}"),
        ([((0, 1),), ((0, 1),)], 0, {}, EngineError, "given twice"),
        ([()], 0, {}, InterventionError, "non-empty"),
        ([], 0, {"vectors_of": [((0, 1),)]}, EngineError, "in no set"),
        ([], 0, {"lengths": [3]}, EngineError, "1 lengths"),
        ([], 0, {"lengths": [99] * len(PROMPTS)}, EngineError, "prompt 0: length 99"),
    ],
)
def test_what_cannot_be_measured_is_refused(engines, sets, layer, options, error, message):
    with pytest.raises(error, match=message):
        measure_geometry(engines["gpt2"], PROMPTS, sets, layer, **options)


def test_a_prompt_without_a_step_is_refused(engines):
    with pytest.raises(StatisticsError, match="no step"):
        measure_geometry(engines["gpt2"], [Prompt((0, 5), 7, 8)], [], 0)


def test_figures_that_are_not_finite_are_refused(tiny_entry):
    engine = Engine(load_model(tiny_entry("gpt2")))
    replay = engine.architecture.after_attention

    def broken(calls: Any, layer: int, hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        # Only what is measured: the check before it replays the last layer at one position.
        return replay(calls, layer, hidden, *rest) * (float("inf") if hidden.shape[1] > 1 else 1.0)

    engine.architecture.after_attention = broken
    with pytest.raises(EngineError, match="not finite"):
        measure_geometry(engine, PROMPTS[:1], [], 1)


# --- spread --------------------------------------------------------------------------------------


def test_the_spread_is_the_entropy_of_a_gaussian_without_its_constant():
    truth = np.diag([4.0, 1.0, 0.25])
    vectors = generator(0, "spread").multivariate_normal(np.zeros(3), truth, size=20_000)
    constant = 1.5 * np.log(2 * np.pi * np.e)
    expected = stats.multivariate_normal(cov=truth).entropy() - constant
    assert activation_spread(vectors) == pytest.approx(expected, abs=0.05)


@PROPERTIES
@given(st.integers(0, 2**32), st.floats(0.1, 10.0), st.integers(5, 20), st.integers(2, 30))
def test_a_change_of_unit_adds_its_logarithm_a_dimension(seed, factor, n, d):
    vectors = generator(seed, "unit").normal(size=(n, d))
    moved = factor * vectors + 3.0
    expected = activation_spread(vectors) + d * np.log(factor)
    assert activation_spread(moved) == pytest.approx(expected, abs=1e-6)


def test_a_smaller_spread_is_found_and_pairing_narrows_its_interval():
    rng = generator(0, "difference")
    clusters = np.repeat([f"fact{i}" for i in range(24)], 3)
    clean = np.repeat(rng.normal(size=(24, 12)), 3, axis=0) + 0.5 * rng.normal(size=(72, 12))
    ablated = 0.8 * clean + 0.02 * rng.normal(size=clean.shape)
    paired = spread_difference(clean, ablated, clusters)
    assert paired.low < 12 * np.log(0.8) < paired.high < 0
    assert (paired.n, paired.n_clusters) == (72, 24)
    # Independent data of the same two distributions: no row of one belongs to a row of the other.
    other = np.repeat(rng.normal(size=(24, 12)), 3, axis=0) + 0.5 * rng.normal(size=(72, 12))
    loose = spread_difference(clean, 0.8 * other, clusters)
    assert paired.high - paired.low < 0.2 * (loose.high - loose.low)


def test_the_interval_of_a_difference_covers_its_expectation_as_often_as_documented():
    rng = generator(0, "spread coverage")
    clusters = np.repeat(np.arange(16), 3)

    def pair() -> tuple[np.ndarray, np.ndarray]:
        facts = np.repeat(rng.normal(size=(16, 8)), 3, axis=0)
        sides = [facts + 0.6 * rng.normal(size=facts.shape) for _ in range(2)]
        sides[1][:, :3] *= 0.5
        return sides[0], sides[1]

    truth = np.mean(
        [activation_spread(b) - activation_spread(a) for a, b in (pair() for _ in range(300))]
    )
    intervals = [spread_difference(*pair(), clusters) for _ in range(60)]
    covered = np.mean([found.low <= truth <= found.high for found in intervals])
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)


@pytest.mark.parametrize("factor", [1.0, 0.8])
def test_a_mere_factor_has_no_interval(factor):
    clean = generator(0, "factor").normal(size=(30, 40))
    with pytest.raises(DegenerateInterval, match="same factor") as caught:
        spread_difference(clean, factor * clean, [f"fact{i // 2}" for i in range(30)])
    assert caught.value.value == pytest.approx(40 * np.log(factor), abs=1e-9)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0]], "no spread"),
        ([[1.0, 2.0]] * 4, "no spread"),
        ([1.0, 2.0], "shape"),
        ([[np.nan], [1.0]], "finite"),
    ],
)
def test_vectors_without_a_spread_are_refused(vectors, message):
    with pytest.raises(StatisticsError, match=message):
        activation_spread(vectors)


def test_vectors_that_are_not_paired_are_refused():
    with pytest.raises(StatisticsError, match="pair them"):
        spread_difference([[1.0], [2.0]], [[1.0]], list("ab"))
