"""Run: pytest tests/api/test_verdict.py"""

import pytest

from tinyablation.api.errors import ApiError
from tinyablation.api.verdict import Verdict, html_table
from tinyablation.statistics.intervals import Estimate
from tinyablation.verdicts.verdicts import Verdict as Judged
from tinyablation.verdicts.verdicts import blocked, judge_above_floor


@pytest.fixture
def verdict() -> Verdict:
    effect = Estimate(1.2, 1.0, 1.4, 40, 20)
    judged = judge_above_floor(effect, floor=0.2, what="zeroing L0H7")
    return Verdict.of(judged, model="gpt2", condition="ioi", subject="L0H7", split="both")


def test_it_is_a_verdict_of_the_library(verdict):
    assert isinstance(verdict, Judged) and verdict.status == "supported"
    assert str(verdict).startswith("supported: zeroing L0H7: 1.20 logits, interval [1.00, 1.40]")


def test_its_table_has_its_figures(verdict):
    row = verdict.table.iloc[0]
    assert (row["model"], row["condition"], row["subject"], row["verdict"]) == (
        *("gpt2", "ioi", "L0H7", "supported"),
    )
    assert (row["estimate"], row["low"], row["high"], row["floor"]) == (1.2, 1.0, 1.4, 0.2)
    assert (row["n_examples"], row["n_clusters"], row["unit"]) == (40, 20, "logits")


def test_its_plot_shows_estimate_interval_and_bounds(verdict):
    figure = verdict.plot()
    lines = figure.axes[0].lines
    assert {tuple(line.get_xdata()) for line in lines} == {(0, 0), (0.2, 0.2), (1.0, 1.4), (1.2,)}
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_blocked_one_has_a_reason_and_no_plot():
    verdict = Verdict.of(blocked("the model does not answer"), model="gpt2")
    assert verdict.table["estimate"].isna().all()
    assert "■ blocked" in verdict._repr_html_()
    with pytest.raises(ApiError, match="nothing was measured"):
        verdict.plot()


def test_texts_are_escaped(verdict):
    hostile = Verdict.of(blocked("<script>x"), model="<img>", condition="<b>")
    for text in ("<script>", "<img>", "<b>,", "<b></"):
        assert text not in hostile._repr_html_().removeprefix("<div><b>")
    shown = html_table("<i>", ("<u>",), [["<s>"], [0.123456], [float("nan")]])
    assert not {"<i>", "<u>", "<s>"} & {shown[n : n + 3] for n in range(len(shown))}
    assert "<td>0.123</td>" in shown and "<td>nan</td>" in shown
