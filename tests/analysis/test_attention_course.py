"""Which of induction and sinks forms first, on made-up courses.

Run: pytest tests/analysis/test_attention_course.py
"""

from dataclasses import replace

import pytest

from tests.benches import bench_of
from tests.test_literature_claims import course
from tinyablation.analysis.attention_course import (
    AttentionCourse,
    attention_course,
    induction_before_sinks,
)
from tinyablation.analysis.emergence import TrajectoryError

ALIKE = [0.1, 0.6, 0.8]


@pytest.mark.parametrize(
    ("induction", "sinks", "status", "said"),
    [
        (ALIKE, [0.0, 0.1, 0.5], "supported", "beyond that at step 1"),
        ([0.6, 0.7, 0.8], [0.0, 0.1, 0.5], "supported", "beyond that at step 0"),
        ([0.1, 0.1, 0.8], [0.0, 0.5, 0.5], "refuted", "beyond that at step 2"),
        (ALIKE, [0.0, 0.4, 0.5], "inconclusive", "both came between steps 0 and 1"),
        (ALIKE, [0.4, 0.4, 0.5], "refuted", "beyond that at step 1"),
        ([0.6, 0.7, 0.8], [0.5, 0.5, 0.5], "inconclusive", "both came before step 0"),
        (
            [0.388, 0.7, 0.8],
            [0.5, 0.5, 0.5],
            "inconclusive",
            "but induction score at step 0 beyond",
        ),
        ([0.1, 0.2, 0.25], [0.0, 0.1, 0.5], "blocked", "no head of made-up inducts at the last"),
        (ALIKE, [0.0, 0.0, 0.0], "blocked", "hardly a head of made-up is a sink"),
        # Sinks came first, went, and came again.
        ([0.1, 0.1, 0.6, 0.8], [0.0, 0.6, 0.0, 0.5], "inconclusive", "beyond that at step 1"),
    ],
)
def test_the_first_of_the_two_is_told_where_a_checkpoint_lies_between(
    induction, sinks, status, said
):
    found = induction_before_sinks(course(induction, sinks))
    assert found.status == status and said in found.reason, found.reason


def test_a_head_that_leads_on_one_half_alone_decides_nothing():
    """The step is found on discovery; on the other half its induction is not there."""
    made = course([0.1, 0.1, 0.8], [0.0, 0.1, 0.5])
    lucky = made.repeated[1].tensors["induction"].copy()
    lucky[:20, 0, 0] = 0.6
    reading = made.repeated[1]
    source = reading.source._replace(tensors={"induction": lucky})
    repeated = (made.repeated[0], replace(reading, source=source), made.repeated[2])
    found = induction_before_sinks(replace(made, repeated=repeated))
    assert found.status == "inconclusive", found.reason
    assert replace(made, repeated=repeated).formed() == 1


def test_the_rise_is_that_of_the_best_heads_paired():
    made = course([0.1, 0.5, 0.8], [0.0, 0.1, 0.5])
    assert made.rise().low < 0.7 < made.rise().high and made.rise().n == 20
    assert made.rise().estimate == (made.induction(2) - made.induction(0)).mean()
    assert made.runs == ("made-up-attention",) * 6


def test_what_is_no_course_is_refused():
    made = course([0.1, 0.8], [0.0, 0.5])
    with pytest.raises(TrajectoryError, match="1 steps with 2 and 2 readings"):
        replace(made, steps=(0,))
    with pytest.raises(TrajectoryError, match="not in increasing order"):
        replace(made, steps=(3, 3))
    source = made.random[1].source
    other = source._replace(document={**source.document, "ids": [1]})
    with pytest.raises(TrajectoryError, match="not the same sequences"):
        replace(made, random=(made.random[0], replace(made.random[1], source=other)))


@pytest.mark.slow
def test_every_checkpoint_is_read_on_the_same_sequences(tmp_path):
    found = attention_course(bench_of("tiny-gpt2", tmp_path, tmp_path / "none"))
    assert isinstance(found, AttentionCourse) and found.steps == (0, 30, 60, 120)
    assert len(set(found.runs)) == 8 and all("step" in name for name in found.runs)
    assert 0 <= found.induction(0).mean() <= 1
    with pytest.raises(TrajectoryError, match="'tiny-llama' has no checkpoints"):
        attention_course(bench_of("tiny-llama", tmp_path, tmp_path / "none"))
