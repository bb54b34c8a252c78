"""Induction and attention sinks over the checkpoints of a training run: which forms first.

Attention is read on the same sequences at every checkpoint. The induction score of a checkpoint is
that of the head that leads there on the first half of the sequences, on the other half; its share
of sinks is that of all heads, on all sequences (analysis/attention.py).
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.analysis.attention import SINK_THRESHOLD, Attention
from tinyablation.analysis.emergence import TrajectoryError
from tinyablation.analysis.findings import Findings
from tinyablation.corpora.examples import BOTH, CONFIRMATION, DISCOVERY
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    Floats,
    cluster_interval,
    generator,
)
from tinyablation.verdicts.presuppositions import presupposed
from tinyablation.verdicts.verdicts import (
    Verdict,
    blocked,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
)

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench

INDUCTS = 0.3  # of the last checkpoint's induction score: ten times that of a random model
SINKS = 0.1  # of its share of sinks: with fewer there is no half of them to reach


@dataclass(frozen=True)
class AttentionCourse:
    """What the heads of one model attend to, by training step.

    steps [n] increase strictly; repeated, random [n]: readings of RepeatedTokens and RandomTokens,
    of the same sequences at each step. Raises TrajectoryError otherwise.
    """

    model: str
    steps: tuple[int, ...]
    repeated: tuple[Attention, ...]
    random: tuple[Attention, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.steps) == len(self.repeated) == len(self.random):
            raise TrajectoryError(
                f"{self.model}: {len(self.steps)} steps with {len(self.repeated)} and "
                f"{len(self.random)} readings; a course has two or more, and both of each"
            )
        if any(later <= earlier for earlier, later in pairwise(self.steps)):
            raise TrajectoryError(f"{self.model}: steps {self.steps} are not in increasing order")
        for readings in (self.repeated, self.random):
            if any(each.document["ids"] != readings[0].document["ids"] for each in readings):
                raise TrajectoryError(f"{self.model}: not the same sequences at every step")

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the run directories it comes from."""
        return tuple(name for each in (*self.repeated, *self.random) for name in each.runs)

    def induction(self, at: int, split: str = CONFIRMATION) -> Floats:
        """[n_sequences] the induction score of the leading head of the step of this index."""
        reading = self.repeated[at]
        (head,) = reading.leaders("induction", 1)
        return np.asarray(reading.values("induction", split)[:, reading.heads.index(head)])

    def sinks(self, at: int) -> Floats:
        """[n_sequences] the share of heads that are sinks at the step of this index."""
        return np.asarray((self.random[at].values("sink", BOTH) > SINK_THRESHOLD).mean(axis=1))

    def rise(self) -> Estimate:
        """The induction score of the last step minus that of the first, paired by sequence."""
        return self.interval(self.induction(-1) - self.induction(0), "rise of induction")

    def formed(self) -> int:
        """The index of the first step with half of the last step's induction, on discovery."""
        means = [self.induction(at, DISCOVERY).mean() for at in range(len(self.steps))]
        return next(at for at, mean in enumerate(means) if mean >= means[-1] / 2)

    def interval(self, values: Floats, purpose: str) -> Estimate:
        """The mean over sequences; of zero width where it is the same in all of them."""
        rng = generator(int(self.repeated[0].document["seed"]), f"{self.model} {purpose}")
        n = len(values)
        try:
            return cluster_interval(values, range(n), rng, bounds=(-1.0, 1.0))
        except DegenerateInterval as same:
            return Estimate(same.value, same.value, same.value, n, n)


def attention_course(bench: "Bench") -> AttentionCourse:
    """Read attention at every checkpoint of the bench's model, into the bench's store.

    Each model is loaded only if necessary, and released before the next. Raises TrajectoryError if
    the registry lists no checkpoints, WeightsMissing if one is missing.
    """
    from tinyablation.measurement.attention_readings import RandomTokens, RepeatedTokens

    checkpoints = bench.entry.checkpoints
    if not checkpoints:
        raise TrajectoryError(
            f"model {bench.entry.id!r} has no checkpoints; list them in the registry to follow it"
        )
    read = []
    for checkpoint in checkpoints:
        then = bench.like(bench.entry.at(checkpoint))
        found = Findings(then)
        read.append((found.attention(RepeatedTokens()), found.attention(RandomTokens())))
        then.release()
    repeated, random = zip(*read, strict=True)
    steps = tuple(checkpoint.step for checkpoint in checkpoints)
    return AttentionCourse(bench.entry.id, steps, repeated, random)


def induction_before_sinks(course: AttentionCourse) -> Verdict:
    """The verdict on "at a checkpoint with half of the final induction, half of the sinks are not".

    The checkpoint is the first that has it on discovery. supported: the intervals of its induction
    beyond half of the last one's, and of half of the last share of sinks beyond its own and beyond
    that of every checkpoint before it, lie above 0 (sinks may come, go and come again); refuted: it
    has more than half of the sinks, and so has the checkpoint before it, where the interval of
    induction lies below half; else inconclusive: both came between the same two checkpoints, or
    before the first. Blocked where the last checkpoint has no induction (INDUCTS) or no sinks
    (SINKS).
    """
    if course.induction(-1, DISCOVERY).mean() <= INDUCTS:
        return blocked(f"no head of {course.model} inducts at the last checkpoint")
    if course.sinks(-1).mean() <= SINKS:
        return blocked(f"hardly a head of {course.model} is a sink at the last checkpoint")
    at = course.formed()
    step = course.steps[at]
    beyond = course.induction(at) - course.induction(-1) / 2
    formed = judge_above_floor(
        course.interval(beyond, f"induction at {step} beyond half"),
        floor=0.0,
        what=f"induction score at step {step} beyond half of the last one's",
        unit="",
    )
    before = _fewer_sinks(course, at)
    unknown = _not_sinks_first(course, at) if before.status == "refuted" else ""
    if unknown:
        before = replace(before, status="inconclusive", reason=f"{before.reason}; {unknown}")
    # What discovery has found need not be there on the other half, which refutes no order; and
    # sinks that were there for a while are not those of the last checkpoint for certain.
    earlier = [presupposed(_fewer_sinks(course, place)) for place in range(at)]
    return judge_all_of([presupposed(formed), before, *earlier], show=before)


def _not_sinks_first(course: AttentionCourse, at: int) -> str:
    """Why sinks are not known to have come before induction, at this index; or ""."""
    step = course.steps[at]
    if at == 0:
        return f"both came before step {step}, so that neither is known to be first"
    earlier = course.steps[at - 1]
    if _fewer_sinks(course, at - 1).status != "refuted":
        return f"both came between steps {earlier} and {step}, so that neither is known to be first"
    beyond = course.induction(at - 1) - course.induction(-1) / 2
    lacking = judge_below_ceiling(
        course.interval(beyond, f"induction at {earlier} beyond half"),
        ceiling=0.0,
        what=f"induction score at step {earlier} beyond half of the last one's",
        unit="",
    )
    return "" if lacking.status == "supported" else f"but {lacking.reason}"


def _fewer_sinks(course: AttentionCourse, at: int) -> Verdict:
    step = course.steps[at]
    return judge_above_floor(
        course.interval(course.sinks(-1) / 2 - course.sinks(at), f"half of sinks beyond {step}"),
        floor=0.0,
        what=f"half of the last share of sinks beyond that at step {step}",
        unit="",
    )
