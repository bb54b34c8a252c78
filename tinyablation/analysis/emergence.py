"""A training trajectory: what a head does at each checkpoint of a model, and whether it emerges.

A head emerges as a suppressor if it is not one at the first checkpoint but is one at the last.
Delta = ablated - clean of the logit difference, as everywhere.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.analysis.effects import (
    Floats,
    same_examples,
)
from tinyablation.analysis.findings import Findings
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.errors import TinyAblationError
from tinyablation.heads import Head, head_name
from tinyablation.measurement.validity import (
    COMPETENCE_FLOOR,
    Tables,
    competence,
    is_competent,
)
from tinyablation.statistics.intervals import Agreement, Estimate, generator, rank_agreement
from tinyablation.verdicts.floors import Floor
from tinyablation.verdicts.verdicts import (
    Verdict,
    blocked,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
)

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench

FEWEST_FOR_TREND = 3  # two points always lie on a line


class TrajectoryError(TinyAblationError):
    """The measurements do not form a trajectory: too few, unordered, or of different heads."""


@dataclass(frozen=True)
class TrainingTrajectory:
    """One head of one model under one condition, by training step.

    steps [n] increase strictly; sweeps [n] hold the head at each step, on the same examples.
    """

    model: str
    condition: str
    head: Head
    steps: tuple[int, ...]
    sweeps: tuple[Sweep, ...]

    def __post_init__(self) -> None:
        if len(self.steps) < 2 or len(self.steps) != len(self.sweeps):
            raise TrajectoryError(
                f"{self.model}: {len(self.steps)} steps and {len(self.sweeps)} measurements; a "
                "trajectory has two or more steps, and one measurement for each"
            )
        if any(later <= earlier for earlier, later in pairwise(self.steps)):
            raise TrajectoryError(f"{self.model}: steps {self.steps} are not in increasing order")
        for step, sweep in zip(self.steps, self.sweeps, strict=True):
            if sweep.condition != self.condition or self.head not in sweep.heads:
                raise TrajectoryError(
                    f"{self.model}, step {step}: {sweep.condition} without head "
                    f"{head_name(self.head)}; {self.condition} with that head is needed"
                )

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs it rests on, by step."""
        return tuple(name for sweep in self.sweeps for name in sweep.runs)

    @property
    def seed(self) -> int:
        return self.sweeps[0].seed

    def deltas(self, split: str = CONFIRMATION) -> Floats:
        """[n_steps, n_examples] Delta LD of the head, in logits; every row the same examples.

        Raises EffectsError when the steps were measured on different examples.
        """
        for sweep in self.sweeps[1:]:
            same_examples(self.sweeps[0], sweep, split)
        rows = [sweep.deltas(split)[:, sweep.heads.index(self.head)] for sweep in self.sweeps]
        return np.stack(rows)

    def clean(self, split: str = CONFIRMATION) -> list[Estimate]:
        """By step: the mean LD of the unhooked model with its interval, in logits."""
        return [
            sweep.interval(
                sweep.baseline(split)["logit_diff"].to_numpy(dtype=float), split, "clean LD"
            )
            for sweep in self.sweeps
        ]

    def delta(self, split: str = CONFIRMATION) -> list[Estimate]:
        """By step: the mean Delta LD of the head with its interval, in logits."""
        return [sweep.effect(self.head, split=split) for sweep in self.sweeps]

    def knows(self) -> list[bool]:
        """By step: whether the model prefers the target in 90 % of the examples of every cell.

        Over both splits, and without an interval: it sets floors and is shown, and blocks nothing.
        """
        return [
            all(cell.accuracy >= COMPETENCE_FLOOR for cell in competence(rows).values())
            for rows in (sweep.baseline() for sweep in self.sweeps)
        ]

    def floors(self, split: str = CONFIRMATION) -> list[Floor]:
        """By step: the smallest effect that counts, 5 % of that step's clean LD, in logits.

        While the model does not know the answers, it is at least that of the last step: a clean LD
        near 0 gives a floor near 0, which any shift of an untrained model's logits exceeds.
        """
        own = [sweep.floor(split) for sweep in self.sweeps]
        return [
            floor if known else max(floor, own[-1])
            for floor, known in zip(own, self.knows(), strict=True)
        ]

    def panel(self, split: str = CONFIRMATION) -> dict[str, object]:
        """The data of a plot of the trajectory, as lists; clean and delta: estimate, low, high.

        Keys: steps, clean, delta, floor, knows, split.
        """
        return {
            "steps": list(self.steps),
            "clean": [[one.estimate, one.low, one.high] for one in self.clean(split)],
            "delta": [[one.estimate, one.low, one.high] for one in self.delta(split)],
            "floor": [float(floor) for floor in self.floors(split)],
            "knows": self.knows(),
            "split": split,
        }


@dataclass(frozen=True)
class Emergence:
    """Whether a head becomes a suppressor over training.

    change: mean of Delta(last step) - Delta(first step), paired by example, in logits. first_above:
    the first step at which the whole interval of Delta lies above that step's floor, or None.
    trend: Spearman's rho of mean Delta with step and its p (greater; exact up to 8 steps); None
    with fewer than three steps or equal Deltas. verdict: see `emergence`.
    """

    change: Estimate
    first_above: int | None
    trend: Agreement | None
    verdict: Verdict


def emergence(trajectory: TrainingTrajectory, *, split: str = CONFIRMATION) -> Emergence:
    """Whether the head becomes a suppressor: it is not one at the first step but is at the last.

    supported: Delta is below the floor at the first step and above it at the last, and the paired
    change is above 0, each with its whole interval; refuted: one of the three fails with its whole
    interval, for instance if the head was a suppressor from the start; blocked: even at the last
    step the model is shown not to know the answers of some kind of prompt (validity.is_competent);
    else inconclusive. The verdict's effect is the change. It is required because floors follow the
    clean LD: a constant Delta could end up above a falling floor.
    """
    deltas = trajectory.deltas(split)
    last = trajectory.sweeps[-1]
    name, first_step, last_step = (
        head_name(trajectory.head),
        trajectory.steps[0],
        trajectory.steps[-1],
    )
    change = last.interval(
        deltas[-1] - deltas[0], split, f"change of {name}, step {first_step} to {last_step}"
    )
    by_step, floors = trajectory.delta(split), trajectory.floors(split)
    above = [
        step
        for step, delta, floor in zip(trajectory.steps, by_step, floors, strict=True)
        if delta.low > floor
    ]
    rise = judge_above_floor(
        change,
        floor=last.zero(),
        what=f"change of Delta of {name} from step {first_step} to {last_step}",
    )
    verdict = judge_all_of(
        [
            judge_below_ceiling(
                by_step[0], ceiling=floors[0], what=f"zero-ablating {name} at step {first_step}"
            ),
            judge_above_floor(
                by_step[-1], floor=floors[-1], what=f"zero-ablating {name} at step {last_step}"
            ),
            rise,
        ],
        show=rise,
    )
    rows = last.baseline()
    # Of the clean side alone.
    answers = is_competent(Tables(rows, rows, None), by_cell=True)
    if answers.status == "refuted":
        verdict = blocked(
            f"{trajectory.model} does not know the answers at step {last_step}: {answers.reason}"
        )
    trend = _trend(trajectory, deltas.mean(1), split)
    return Emergence(
        change,
        above[0] if above else None,
        trend,
        replace(
            verdict,
            details={
                "head": name,
                "first_above": above[0] if above else None,
                "trend": None if trend is None else {"rho": trend.rho, "p": trend.p},
                "course": trajectory.panel(split),
            },
        ),
    )


def training_trajectory(bench: "Bench", head: Head, condition: str) -> TrainingTrajectory:
    """Measure one head at every checkpoint of the bench's model, into the bench's store.

    Each checkpoint is a separate run (model <id>-step<0000>, battery one_head), reused if it is
    complete; each model is loaded only if necessary, and released before the next. Raises
    TrajectoryError if the registry lists no checkpoints, WeightsMissing if one is missing.
    """
    from tinyablation.interventions.batteries import ONE_WORDING, one_head

    if not bench.entry.checkpoints:
        raise TrajectoryError(
            f"model {bench.entry.id!r} has no checkpoints; list them in the registry to follow it"
        )
    # As many examples as a sweep has: every wording would cost three times as much per checkpoint.
    wanted = replace(one_head(head), sample=ONE_WORDING)
    sweeps = []
    benches = [bench.like(bench.entry.at(checkpoint)) for checkpoint in bench.entry.checkpoints]
    for then in benches:
        then.ahead(condition, wanted)
    for then in benches:
        found = Findings(then).effects(condition, wanted)
        then.release()
        sweeps.append(
            Sweep(found.model, condition, found.table, found.noise_floor, found.seed, found.runs)
        )
    steps = tuple(checkpoint.step for checkpoint in bench.entry.checkpoints)
    return TrainingTrajectory(bench.entry.id, condition, head, steps, tuple(sweeps))


def _trend(trajectory: TrainingTrajectory, means: Floats, split: str) -> Agreement | None:
    if len(means) < FEWEST_FOR_TREND or np.ptp(means) == 0:
        return None
    rng = generator(trajectory.seed, f"{trajectory.model} {trajectory.condition} {split} trend")
    return rank_agreement(trajectory.steps, means, rng, alternative="greater")
