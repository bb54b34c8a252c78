"""Paired changes by example, on tables whose answer is known.

Run: pytest tests/analysis/test_effects.py
"""

import numpy as np
import pytest

from tests.synthetic_effects import N, make_table
from tinyablation.analysis.effects import (
    Effects,
    EffectsError,
    same_examples,
)
from tinyablation.heads import head_name
from tinyablation.statistics.intervals import DegenerateInterval
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.floors import Noise


def effects(**changes: object) -> Effects:
    return Effects("made-up", "facts", make_table(dict(changes)), 1e-6)


def test_a_change_is_paired_by_example_whatever_the_order_of_rows():
    step = np.linspace(0, 1, N)
    made = effects(moved=step)
    half = make_table({}).set_index("example")["split"] == "discovery"
    assert made.change("moved", "discovery") == pytest.approx(step[half.to_numpy()])
    shuffled = made.table.sample(frac=1, random_state=0)
    again = Effects("made-up", "facts", shuffled, 1e-6)
    assert again.change("moved", "discovery") == pytest.approx(step[half.to_numpy()])
    assert again.clusters("discovery") == made.clusters("discovery")


def test_what_was_not_measured_is_named():
    with pytest.raises(EffectsError, match="'other' was not measured"):
        effects(moved=1.0).change("other", "discovery")


def test_nothing_at_all_has_the_interval_zero_and_a_constant_is_refused():
    """Pitfall P11: an interval over identical values is an error, unless they are all nothing."""
    made = effects(nothing=0.0, same=1.0)
    none = made.interval(made.change("nothing", "confirmation"), "confirmation", "x")
    assert none[:3] == (0, 0, 0)
    with pytest.raises(DegenerateInterval):
        made.interval(made.change("same", "confirmation"), "confirmation", "x")


def test_the_floor_is_a_share_of_the_clean_ld():
    made = effects(moved=1.0)
    clean = made.baseline("confirmation")["logit_diff"].mean()
    assert made.floor() == pytest.approx(0.05 * clean)


def test_the_noise_of_a_share_is_a_share_too():
    made = Effects("made-up", "facts", make_table({}), Noise(0.1, "cuda in bfloat16"))
    for whole, noise, limited in ((0.25, 0.4, False), (-0.25, 0.4, False), (0.125, 0.8, True)):
        found = made.share_of(0.6, whole)
        assert float(found) == 0.6 and found.noise == pytest.approx(noise)
        assert found.limited == limited and found.where == "cuda in bfloat16"
    assert made.share_of(0.6, 0.0).noise == 0


def test_largest_are_the_ends():
    step = np.linspace(-1, 1, N)
    made = effects(moved=step)
    found = made.largest(made.change("moved", "discovery"), "discovery", 2)
    deltas = [row["delta"] for row in found]
    assert deltas == sorted(deltas, reverse=True) and len(deltas) == 4
    assert deltas[0] > 0.9 and deltas[-1] == -1


def test_only_the_same_examples_are_paired():
    first, second = effects(moved=1.0), effects(moved=2.0)
    assert same_examples(first, second, "discovery") == first.clusters("discovery")
    other = Effects("other", "facts", second.table.assign(target=" maybe"), 1e-6)
    with pytest.raises(EffectsError, match="not the same examples"):
        same_examples(first, other, "discovery")


def test_heads_are_written_as_the_study_writes_them():
    assert head_name((0, 7)) == "0:7"


def test_prompts_that_are_moved_alike_stay_in_their_order():
    """Else another numpy, or another machine, would list others of them."""
    made = effects(moved=np.tile([1.0, 0.0, 0.0], N // 3))
    found = made.largest(made.change("moved", "both").round(9), "both", N // 2)
    order = [n for n in range(N) if n % 3 == 0] + [n for n in range(N) if n % 3]
    assert [row["prompt"] for row in found] == [f"prompt {n}" for n in order]


def test_no_prompt_is_among_the_largest_in_both_directions():
    made = effects(moved=np.linspace(-1, 1, N))
    found = made.largest(made.change("moved", "discovery"), "discovery", N)
    assert len({row["prompt"] for row in found}) == len(found) == N // 2


def test_effects_are_told_in_one_line_and_not_with_all_that_was_read_from_them():
    made = effects(moved=1.0)
    made.baseline("both")
    assert (
        repr(made)
        == "Effects(model='made-up', condition='facts', noise_floor=1e-06, seed=0, runs=())"
    )


def test_whole_numbers_are_figures_too():
    made = effects(moved=1.0)
    table = made.table.assign(target_rank=made.table["example"])
    ranks = Effects("made-up", "facts", table, 1e-6).values("moved", "both", "target_rank")
    assert ranks.dtype == np.float64 and ranks.tolist() == list(range(N))


def test_largest_say_of_which_prompt_what_was_changed_by_how_much():
    made = effects(moved=np.linspace(-1, 1, N))
    first = made.largest(made.change("moved", "discovery"), "discovery", 1)[0]
    clean = made.baseline("discovery")
    row = len(clean) - 1  # discovery's last example is moved most
    assert first == {
        "prompt": clean["clean"][row],
        "target": clean["target"][row],
        "foil": clean["foil"][row],
        "clean_ld": pytest.approx(clean["logit_diff"][row]),
        "delta": pytest.approx(made.change("moved", "discovery")[row]),
        "split": "discovery",
    }
    assert first["target"] != first["foil"]


def test_a_bound_of_zero_has_the_noise_of_its_column():
    noise = Noise(0.1, "cuda in bfloat16", {"entropy": 0.03})
    made = Effects("made-up", "facts", make_table({}), noise)
    assert (made.zero(), made.zero().noise) == (0.0, 0.1)
    assert (made.zero("entropy"), made.zero("entropy").noise) == (0.0, 0.03)
    assert made.zero("entropy").limited and made.zero().where == "cuda in bfloat16"


@pytest.mark.parametrize(("mean", "sign"), [(4.0, 1), (0.5, 1), (-4.0, -1), (-0.5, -1)])
def test_what_a_share_is_taken_of_has_a_mean_above_zero(mean, sign):
    made = Effects("made-up", "facts", make_table({}, clean_ld=mean), 1e-6)
    clean = made.baseline("both")["logit_diff"].to_numpy()
    assert made.whole("both") == pytest.approx(sign * clean) and made.whole("both").mean() > 0


def test_a_change_that_is_everywhere_as_far_from_a_share_has_no_interval():
    """Unlike no change at all, also where it is none on one example."""
    made = effects(moved=0.0)
    clean = made.whole("both")
    with pytest.raises(DegenerateInterval):
        made.margin(0.05 * (clean - clean[0]), "both", "x", share=0.05)


def test_a_change_as_a_share_of_the_clean_figures():
    """Of each example's own, so that the interval is of what the share varies by."""
    made = effects(moved=0.0)
    clean = made.whole("confirmation")
    rng = np.random.default_rng(0)
    values = 0.06 * clean + 0.05 * rng.normal(size=len(clean))
    found = made.of_clean(values, "confirmation", "x")
    assert found.low < 0.06 < found.high and found.high - found.low < 0.02
    inner = made.of_clean(values, "confirmation", "x", confidence=0.9)
    assert found.low < inner.low < inner.high < found.high
    assert inner.estimate == found.estimate == pytest.approx(values.mean() / clean.mean())
    n, k = len(clean), len(set(made.clusters("confirmation")))
    exact = made.of_clean(0.25 * clean, "confirmation", "x")
    assert exact == pytest.approx((0.25, 0.25, 0.25, n, k)), "the same in every cluster"
    loud = Effects("made-up", "facts", made.table, Noise(9.0))
    with pytest.raises(RatioUndefined, match="numerical noise"):
        loud.of_clean(values, "confirmation", "x")
