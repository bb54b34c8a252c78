"""Which heads a screened sweep measures, and the bound on what the others may hide.

Run: pytest tests/measurement/test_screening.py
"""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tinyablation.analysis.findings import Findings
from tinyablation.interventions.batteries import single_heads
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.protocols import PUBLISHED
from tinyablation.measurement.screening import (
    Amount,
    Plan,
    ScreenedHeads,
    ScreeningError,
    make_plan,
    obtain_plan,
    parse_screening,
)
from tinyablation.models.registry import load_registry

ROOT = Path(__file__).parents[2]
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
PLANTED = {"tiny-gpt2": (0, 7), "tiny-mistral": (0, 7), "tiny-llama": (0, 0), "tiny-neox": (0, 1)}


def scores(n_layers=6, n_heads=8, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_layers, n_heads))


def plan(text="3:5", *, layers=None, seed=0, of=None) -> Plan:
    asked = parse_screening(text, {"m": frozenset(layers or ())})
    return make_plan(scores() if of is None else of, asked, "m", seed=seed, purpose="test")


# --- what is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n_heads", "expected"),
    [("64", 1024, 64), ("64", 32, 32), ("5%", 1024, 52), ("2.5%", 384, 10), ("100%", 32, 32)],
)
def test_an_amount_is_a_number_or_a_share_of_all_heads(text, n_heads, expected):
    assert Amount(text).of(n_heads) == expected


@pytest.mark.parametrize("text", ["", "0", "-3", "5 heads", "0%", "101%", "1e3", "1.5", "٣"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ScreeningError, match="is not a number of heads"):
        parse_screening(f"4:{text}")
    with pytest.raises(ScreeningError, match="is not a number of heads"):
        parse_screening(f"{text}:4")


def test_both_amounts_must_be_given():
    with pytest.raises(ScreeningError, match="write TOP:SAMPLE"):
        parse_screening("64")
    assert parse_screening(" 64 : 5% ").asked == "64:5%"


# --- which heads ---------------------------------------------------------------------------------


def test_a_plan_measures_whole_layers_the_top_and_a_sample():
    of = scores()
    made = plan("3:5", layers={2}, of=of)
    assert made.whole == (0, 2)
    others = [head for head in single_heads(6, 8) if head[0] not in (0, 2)]
    by_score = sorted(others, key=lambda head: -of[head])[:3]
    by_size = sorted(others, key=lambda head: -abs(of[head]))[:3]
    firsts = [(layer, int(np.argmax(abs(of[layer])))) for layer in (1, 3, 4, 5)]
    assert set(made.top) == {*by_score, *by_size, *firsts}
    assert len(made.sample) == 5
    assert set(made.rest) == set(others) - set(made.top)
    assert set(made.sample) <= set(made.rest)
    whole = {head for head in single_heads(6, 8) if head[0] in (0, 2)}
    assert set(made.measured) == whole | set(made.top) | set(made.sample)
    assert list(made.measured) == sorted(made.measured)


def test_every_layer_has_a_measured_head():
    of = np.zeros((6, 8))
    of[5] = 10.0
    assert {layer for layer, _ in plan("1:1", of=of).measured} == set(range(6))


def test_layers_of_another_model_and_beyond_the_last_are_left_out():
    asked = parse_screening("1:1", {"m": frozenset({9}), "other": frozenset({3})})
    assert make_plan(scores(), asked, "m", seed=0, purpose="test").whole == (0,)


def test_the_seed_draws_the_sample_and_nothing_else():
    first, second = plan(seed=0), plan(seed=1)
    assert first.top == second.top and first.sample != second.sample
    assert plan(seed=0) == first
    assert len({first.name, second.name, plan("4:5").name, plan("3:6").name}) == 4


def test_every_head_of_the_rest_is_drawn_alike():
    """The bound rests on it: a sample that favoured some heads would bound nothing."""
    of = scores()
    counts: dict = {}
    for seed in range(600):
        for head in plan("3:5", seed=seed, of=of).sample:
            counts[head] = counts.get(head, 0) + 1
    rest = plan("3:5", of=of).rest
    assert set(counts) == set(rest)
    assert stats.chisquare([counts[head] for head in rest]).pvalue > 0.001


def test_a_sample_of_more_than_there_are_is_all():
    made = plan("2:1000")
    assert made.measured == made.every
    assert plan("1000:3").sample == () and plan("1000:3").measured == made.every


def test_the_battery_has_the_heads_of_the_plan_alone():
    made = plan()
    battery = ScreenedHeads(made.measured, made.name)
    shards = battery.shards(6, 8)
    assert shards[0].interventions == ()
    assert [each.heads[0] for shard in shards for each in shard.interventions] == list(
        made.measured
    )
    assert {each.method for shard in shards for each in shard.interventions} == {"zero"}
    assert made.name in battery.name
    with pytest.raises(ScreeningError, match="no head"):
        battery.shards(2, 8)


# --- the bound -----------------------------------------------------------------------------------


# --- with a model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    return put_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


def bench(store: Path, corpora: Path, text: str | None = "2:6", **options) -> Bench:
    asked = None if text is None else parse_screening(text)
    return bench_of("tiny-mistral", store, corpora, screening=asked, **options)


@pytest.mark.slow
def test_a_screened_sweep_is_exact_where_it_measures(store, corpora):
    """Scores choose heads, and no figure is one: the same as in a full sweep."""
    full, made = (Findings(bench(store, corpora, text)).sweep("facts") for text in (None, "2:6"))
    assert full.screened is None and made.screened is not None
    assert set(made.heads) < set(full.heads)
    for split in ("discovery", "confirmation"):
        wanted = [full.heads.index(head) for head in made.heads]
        # float32 sums in other batches: 1e-5, as everywhere.
        assert made.deltas(split) == pytest.approx(full.deltas(split)[:, wanted], abs=1e-5)
    assert made.n_layers == full.n_layers
    assert made.runs[0] != full.runs[0]


@pytest.mark.slow
def test_scores_and_plan_are_kept_and_read_without_the_model(store, corpora):
    first = bench(store, corpora)
    sweep = Findings(first).sweep("facts")
    again = bench(store, corpora)
    assert Findings(again).sweep("facts").table.equals(sweep.table)
    assert "model" not in again.__dict__
    assert (store / sweep.runs[1] / "reading.json").exists()
    other = bench(store, corpora, "2:6", seed=1)
    assert Findings(other).sweep("facts").runs[0] != sweep.runs[0]
    assert Findings(bench(store, corpora, "3:6")).sweep("facts").runs[0] != sweep.runs[0]


def test_the_confirmation_split_has_no_say(tmp_path, corpora, store):
    """P13: other confirmation prompts, and the same heads are measured."""
    other = put_corpora(tmp_path / "corpora", rows=(16, 32))
    asked = parse_screening("2:6")
    one, two = (obtain_plan(bench(tmp_path, where), "facts", asked) for where in (corpora, other))
    assert (one.top, one.sample) == (two.top, two.sample)
    assert one.scores == two.scores


def test_another_protocol_is_not_screened(tmp_path, corpora):
    made = bench(tmp_path, corpora, protocol=PUBLISHED)
    with pytest.raises(ScreeningError, match="zero_folded is not screened"):
        Findings(made).sweep("facts")


@pytest.mark.parametrize("model", PLANTED)
def test_a_planted_suppressor_has_the_highest_score(model, tmp_path):
    """The positive control: in all four families the planted head leads all 32 by its score."""
    made = bench_of(model, tmp_path)
    found = np.array(obtain_plan(made, "facts", parse_screening("1:1")).scores)
    assert np.unravel_index(found.argmax(), found.shape) == PLANTED[model]
