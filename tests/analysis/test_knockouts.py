"""What is lost without a set of heads, on tables whose answer is known, and on an embedded model.

Run: pytest tests/analysis/test_knockouts.py
"""

from dataclasses import replace

import pytest

from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tests.synthetic_effects import make_table, noise
from tinyablation.analysis.findings import Findings
from tinyablation.analysis.knockouts import Knockouts, costs_more
from tinyablation.heads import Head
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.statistics.ratios import RatioUndefined

SET = (Head(1, 2), Head(0, 1))


def without(share: float, clean: float = 4.0) -> Knockouts:
    edit = AblateHeads(tuple(sorted(SET)))
    table = make_table({edit.label: -share * 4.0 + noise(0.05, 1)}, clean_ld=clean)
    return Knockouts("made-up", "facts", table, 1e-6)


def test_the_share_of_ld_that_is_lost():
    found = without(0.7).lost(SET)
    assert found.low < 0.7 < found.high and found.high - found.low < 0.1
    assert without(-0.2).lost(SET).high < 0  # without the heads LD rises


@pytest.mark.parametrize(
    ("here", "there", "status"),
    [
        (0.3, 0.1, "supported"),
        (0.1, 0.3, "refuted"),
        (0.1, 0.1, "refuted"),
        (0.03, 0.01, "refuted"),  # more, but not by what counts
        (0.06, 0.01, "inconclusive"),
    ],
)
def test_a_set_costs_more_under_one_condition_than_under_another(here, there, status):
    one, other = without(here), replace(without(there), condition="repeats")
    found = costs_more(one, other, SET)
    assert found.status == status, found.reason
    assert "on facts beyond that on repeats" in found.reason and found.floor == 0.05
    assert found.effect.estimate == one.lost(SET).estimate - other.lost(SET).estimate


@pytest.mark.parametrize(
    ("share", "destroys", "spares"),
    [
        (0.9, "supported", "refuted"),
        (0.5, "inconclusive", "refuted"),
        (0.2, "refuted", "refuted"),
        (0.02, "refuted", "supported"),
        (0.1, "refuted", "inconclusive"),
        (-0.02, "refuted", "supported"),
        (-0.3, "refuted", "refuted"),
    ],
)
def test_a_set_destroys_an_ability_or_spares_it_or_neither(share, destroys, spares):
    found = without(share)
    assert found.destroys(SET).status == destroys
    assert found.spares(SET).status == spares


@pytest.mark.parametrize("clean", [0.0, -1.0])
def test_of_nothing_no_share_is_lost(clean):
    """Nor of a preference for the wrong answer, which zeroing makes stronger."""
    found = without(0.9, clean=clean)
    with pytest.raises(RatioUndefined):
        found.lost(SET)
    assert found.lost_shown(SET).startswith("undefined: the denominator is")
    for verdict in (found.destroys(SET), found.destroys_not(SET), found.spares(SET)):
        assert verdict.status == "blocked" and "share of LD lost" in verdict.reason
    assert costs_more(found, without(0.9), SET).status == "blocked"


@pytest.mark.slow
def test_findings_measure_a_set_of_several_layers_once(tmp_path):
    bench = bench_of("tiny-gpt2", tmp_path / "store", put_corpora(tmp_path))
    findings = Findings(bench)
    found = findings.knockouts("facts", SET)
    assert findings.knockouts("facts", tuple(reversed(SET))) is found
    assert len(found.delta(SET)) == len(found.baseline("confirmation"))
