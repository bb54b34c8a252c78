"""Attention scores as claims read them: of made-up figures whose answers are known.

Run: pytest tests/analysis/test_attention.py
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyablation.analysis.attention import SINK_THRESHOLD, Attention, AttentionError
from tinyablation.analysis.findings import Findings
from tinyablation.engine.document import Computed
from tinyablation.heads import Head
from tinyablation.measurement.attention_readings import OneToken, RepeatedTokens
from tinyablation.records.splits import BOTH, CONFIRMATION, DISCOVERY
from tinyablation.statistics.intervals import DegenerateInterval, max_t_sign_flip

N, LAYERS, HEADS = 40, 2, 3
STRONG, FLUKE = Head(1, 2), Head(0, 1)
DOCUMENT = {"model": "made-up", "inputs": "repeated tokens", "seed": 0}


def attention(**scores: np.ndarray) -> Attention:
    return Attention(Computed(DOCUMENT, scores))


def noise(low: float, high: float, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).uniform(low, high, (N, LAYERS, HEADS))
    return drawn.astype(np.float32)


def planted() -> Attention:
    """STRONG scores .7 on both halves; FLUKE .9 on the first half only."""
    values = noise(0.0, 0.1)
    values[:, STRONG.layer, STRONG.head] += 0.65
    values[: N // 2, FLUKE.layer, FLUKE.head] += 0.85
    return attention(induction=values)


def test_heads_are_chosen_on_the_first_half_and_judged_on_the_second() -> None:
    made = planted()
    assert made.leaders("induction", 2) == (FLUKE, STRONG)
    assert made.above("induction", 0.4) == (FLUKE, STRONG)
    assert made.above("induction", 0.95) == ()
    strong, fluke = (made.estimate("induction", head) for head in (STRONG, FLUKE))
    assert 0.67 < strong.low < strong.estimate < strong.high < 0.73
    assert fluke.high < 0.1 < 0.85 < made.estimate("induction", FLUKE, DISCOVERY).low
    assert (strong.n, strong.n_clusters) == (N // 2, N // 2)


def test_values_are_the_tensors_by_half_and_head() -> None:
    made = planted()
    tensor = made.tensors["induction"]
    assert made.heads == tuple(Head(layer, head) for layer in range(2) for head in range(3))
    for split, rows in (
        (DISCOVERY, slice(0, 20)),
        (CONFIRMATION, slice(20, 40)),
        (BOTH, slice(0, 40)),
    ):
        values = made.values("induction", split)
        assert values.dtype == np.float64
        for place, (layer, head) in enumerate(made.heads):
            assert np.array_equal(values[:, place], tensor[rows, layer, head])
    estimate = made.estimate("induction", STRONG)
    assert estimate.estimate == pytest.approx(tensor[20:, 1, 2].astype(float).mean())


def test_several_heads_are_judged_by_their_mean_and_paired_with_others() -> None:
    made = planted()
    rest = (Head(0, 0), Head(1, 0))
    both = made.estimate("induction", (STRONG, Head(0, 0)))
    singles = [made.estimate("induction", head).estimate for head in (STRONG, Head(0, 0))]
    assert both.estimate == pytest.approx(np.mean(singles))
    lead = made.lead("induction", STRONG, rest)
    other = made.estimate("induction", rest).estimate
    assert lead.estimate == pytest.approx(singles[0] - other)
    assert lead.low > 0.6
    level = made.lead("induction", Head(0, 0), Head(1, 0))
    assert level.low < 0 < level.high
    with pytest.raises(AttentionError, match="made-up has no head 5:0"):
        made.estimate("induction", Head(5, 0))
    with pytest.raises(AttentionError, match="no heads are named"):
        made.estimate("induction", ())


def test_p_is_corrected_over_all_heads() -> None:
    made = planted()
    p = made.corrected("induction", 0.4)
    assert list(p) == list(made.heads)
    assert p[STRONG] < 0.05
    assert all(each > 0.9 for head, each in p.items() if head != STRONG)
    # Near the threshold: the largest of many heads is not judged as if it were the only one.
    even = attention(induction=noise(0.3, 0.7, seed=1))
    corrected = even.corrected("induction", 0.5)
    values = even.values("induction", CONFIRMATION) - 0.5
    leader = even.heads.index(min(corrected, key=lambda head: corrected[head]))
    rng = np.random.default_rng(0)
    (alone,) = max_t_sign_flip(values[:, [leader]], list(range(N // 2)), rng)
    assert corrected[even.heads[leader]] > 1.5 * alone


def test_the_share_of_sinks_counts_heads_sequence_by_sequence() -> None:
    """As Gu et al.: a head above the threshold in half of the sequences counts half."""
    values = np.full((N, LAYERS, HEADS), 0.05, np.float32)
    values[:, 0, 0] = 0.9
    values[::2, 1, 1] = 0.31
    made = attention(sink=values)
    share = made.share("sink", SINK_THRESHOLD)
    assert share.estimate == pytest.approx((1 + 0.5) / 6)
    assert share.low < share.estimate < share.high
    assert (share.n, share.n_clusters) == (N, N)
    # The mean of head 1:1 is .18, below the threshold: shares are no shares of means.
    assert values[:, 1, 1].mean() < SINK_THRESHOLD
    first = made.share("sink", SINK_THRESHOLD, layers=[0])
    assert first == (pytest.approx(1 / 3),) * 3 + (N, N)
    assert made.share("sink", 0.95)[:3] == (0.0, 0.0, 0.0)
    with pytest.raises(AttentionError, match="no heads in layers"):
        made.share("sink", SINK_THRESHOLD, layers=[7])


def test_a_score_that_never_varies_has_no_interval() -> None:
    """But one that is 0 or 1 everywhere: nothing is there to vary."""
    made = attention(sink=np.full((N, 1, 1), 0.25, np.float32))
    with pytest.raises(DegenerateInterval):
        made.estimate("sink", Head(0, 0))
    for value in (0.0, 1.0):
        made = attention(sink=np.full((N, 1, 1), value, np.float32))
        assert made.estimate("sink", Head(0, 0))[:3] == (value, value, value)


@pytest.mark.parametrize(("floor", "status"), [(0.2, "supported"), (0.3, "refuted")])
def test_a_head_whose_score_never_varies_is_judged_all_the_same(floor: float, status: str) -> None:
    """One that is set by hand, say: its interval has no width, and so no p."""
    verdict = attention(sink=np.full((N, 1, 1), 0.25, np.float32)).some_head("sink", floor=floor)
    assert verdict.status == status and verdict.p_value is None, verdict.reason
    assert verdict.effect == (0.25, 0.25, 0.25, N // 2, N // 2)


def test_intervals_do_not_depend_on_what_was_asked_before() -> None:
    one, other = planted(), planted()
    other.estimate("induction", Head(0, 0))
    other.share("induction", 0.5)
    assert one.estimate("induction", STRONG) == other.estimate("induction", STRONG)


def test_what_was_not_read_is_named() -> None:
    with pytest.raises(AttentionError, match="no score 'sink' was read, only induction"):
        planted().values("sink")
    few = attention(sink=noise(0, 1)[:3])
    with pytest.raises(AttentionError, match="3 sequences have no two halves; read at least 4"):
        few.values("sink")


def test_findings_ask_once_for_each_reading() -> None:
    asked: list[Any] = []

    def reading(wanted: Any) -> Any:
        asked.append(wanted)
        return SimpleNamespace(name=f"run-{len(asked)}")

    findings = Findings(SimpleNamespace(reading_without_corpus=reading))  # type: ignore[arg-type]
    first = findings.attention(RepeatedTokens())
    assert first is findings.attention(RepeatedTokens()) and first.runs == ("run-1",)
    assert findings.attention(OneToken()).runs == ("run-2",)
    assert asked == [RepeatedTokens(), OneToken()]
    findings.clear()
    assert findings.attention(OneToken()).runs == ("run-3",)
