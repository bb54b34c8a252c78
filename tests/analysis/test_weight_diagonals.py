"""Shares of diagonals of made-up readings whose answers are known.

Run: pytest tests/analysis/test_weight_diagonals.py
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tinyablation.analysis.findings import Findings
from tinyablation.analysis.weight_diagonals import SUPPRESSED, DiagonalsError, DiagonalShares
from tinyablation.engine.document import Computed
from tinyablation.heads import Head
from tinyablation.measurement.diagonal_readings import WeightDiagonals

VOCABULARY = 1000
COPIER, SUPPRESSOR, PLAIN = Head(1, 0), Head(1, 1), Head(2, 0)


def shares(n_tokens: int) -> DiagonalShares:
    """A head that copies nine tokens in ten, one that suppresses four in five, a random one."""
    rng = np.random.default_rng(0)
    tokens = np.arange(n_tokens)
    above = np.stack(
        [
            np.where(tokens % 10 > 0, 0, 500),
            np.where(tokens % 5 > 0, VOCABULARY - 1 - tokens % 10, 500),
            rng.integers(0, VOCABULARY, n_tokens),
        ]
    )
    below = VOCABULARY - 1 - above
    document = {
        "model": "made-up",
        "heads": [{"layer": head.layer, "head": head.head} for head in (COPIER, SUPPRESSOR, PLAIN)],
        "vocab_size": VOCABULARY,
        "n_tokens": n_tokens,
    }
    places = {"ov.above": above, "ov.below": below, "qk.above": below, "qk.below": above}
    return DiagonalShares(Computed(document, places))


def test_over_the_whole_vocabulary_a_share_has_no_error() -> None:
    made = shares(VOCABULARY)
    copied = made.share(COPIER, "ov", "top", 1)
    assert copied == (0.9, pytest.approx(0.9), pytest.approx(0.9), VOCABULARY, VOCABULARY)
    assert made.share(SUPPRESSOR, "ov", "bottom", SUPPRESSED).estimate == 0.8
    assert made.share(SUPPRESSOR, "ov", "bottom", 5).estimate == 0.4  # 0 to 4 lie below it
    assert made.share(SUPPRESSOR, "ov", "top", SUPPRESSED)[:3] == (0.0, pytest.approx(0.0), 0.0)
    assert made.share(COPIER, "qk", "bottom", 1).estimate == 0.9
    assert made.share(PLAIN, "ov", "top", 10).estimate < 0.03


@pytest.mark.slow
def test_the_ends_of_an_interval_of_no_width_do_not_cross() -> None:
    """1 - (n - k) / n is not always k / n in binary: of 1,404 tokens 14 gave a low end above it."""
    size = 1404
    for found in range(0, size + 1, 7):
        below = np.where(np.arange(size) < found, 0, 500)[None]
        document = {
            "model": "made-up",
            "heads": [{"layer": 1, "head": 0}],
            "vocab_size": size,
            "n_tokens": size,
        }
        made = DiagonalShares(Computed(document, {"ov.below": below}))
        share = made.share(COPIER, "ov", "bottom", SUPPRESSED)
        assert share.low <= share.estimate == found / size <= share.high


def test_of_tokens_drawn_the_interval_is_that_of_clopper_and_pearson() -> None:
    """Of a large population; here it is narrower, because a tenth of it was drawn."""
    share = shares(100).share(COPIER, "ov", "top", 1)
    low, high = stats.binomtest(90, 100).proportion_ci(method="exact")
    assert low < share.low < 0.85 < 0.9 == share.estimate < 0.94 < share.high < high
    document = shares(100).document | {"vocab_size": 200_000}
    large = DiagonalShares(Computed(document, shares(100).tensors))
    share = large.share(COPIER, "ov", "top", 1)
    assert share[1:3] == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.slow
def test_intervals_contain_the_share_as_often_as_they_say() -> None:
    """Of samples from a vocabulary with a share of .8, some 95 % of intervals contain it."""
    made = shares(100)
    true = np.arange(VOCABULARY) % 5 > 0
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        drawn = true[rng.choice(VOCABULARY, 100, replace=False)]
        above = np.where(drawn, 0, 500)[None]
        document = made.document | {"heads": [{"layer": 0, "head": 0}]}
        one = DiagonalShares(Computed(document, {"ov.above": above}))
        low, high = one.share(Head(0, 0), "ov", "top", 1)[1:3]
        held += low <= 0.8 <= high
    assert 280 <= held <= 300


def test_the_heads_with_the_largest_shares_lead() -> None:
    made = shares(200)
    assert made.leaders("ov", "top", 1, 1) == (COPIER,)
    assert made.leaders("ov", "bottom", SUPPRESSED, 2) == (SUPPRESSOR, PLAIN)
    assert made.leaders("qk", "top", SUPPRESSED, 1) == (SUPPRESSOR,)


def test_what_was_not_read_is_named() -> None:
    with pytest.raises(DiagonalsError, match="made-up: head 5:0 was not read"):
        shares(9).share(Head(5, 0), "ov", "top", 1)
    for count in (0, VOCABULARY):
        with pytest.raises(DiagonalsError, match=f"count is {count}; it has 1000 tokens"):
            shares(9).share(COPIER, "ov", "top", count)


def test_findings_ask_once_for_each_reading() -> None:
    asked: list[Any] = []

    def reading(wanted: Any) -> Any:
        asked.append(wanted)
        return SimpleNamespace(name=f"run-{len(asked)}")

    findings = Findings(SimpleNamespace(reading_without_corpus=reading))  # type: ignore[arg-type]
    wanted = WeightDiagonals((COPIER,))
    first = findings.diagonals(wanted)
    assert first is findings.diagonals(wanted) and first.runs == ("run-1",)
    assert findings.diagonals(WeightDiagonals(n_tokens=9)).runs == ("run-2",)
    assert len(asked) == 2
