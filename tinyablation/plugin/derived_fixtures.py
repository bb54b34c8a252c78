"""Fixtures besides sweeps: step norms, a zeroed trio, the corpus "binding", trajectories.

All are behind a gate, as in measurement_fixtures.py, and are measured only under the corrected
protocol; `trio` works under both.
"""

from typing import TYPE_CHECKING

import pytest

from tinyablation.plugin.judge import Judge
from tinyablation.plugin.measurement_fixtures import corrected_only
from tinyablation.plugin.multiverse import (
    heads_again,
    remade,
    same_in_every_analysis,
    zeroed_again,
)

if TYPE_CHECKING:
    from tinyablation.analysis.attention_course import AttentionCourse
    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.analysis.emergence import TrainingTrajectory
    from tinyablation.analysis.findings import Findings
    from tinyablation.analysis.step_norms import StepNorms
    from tinyablation.analysis.sweeps import Sweep
    from tinyablation.heads import Head
    from tinyablation.measurement.bench import Bench
    from tinyablation.verdicts.subjects import Subject


TRIO = 3
NOT_OF_FORECASTS = dict.fromkeys(
    ("metric probability", "metric rank", "metric KL"), "forecasts are made of the logit difference"
)


@pytest.fixture
@same_in_every_analysis
def trio(model: "Bench", named: "tuple[Head, ...]", judge: Judge) -> "tuple[Head, ...]":
    """The three heads, of one layer, that this claim names for this model."""
    from tinyablation.verdicts.verdicts import blocked

    if len(named) != TRIO:
        judge(blocked(f"no three heads are named for {model.entry.id}, only {len(named)}"))
    return named


@pytest.fixture
@remade(heads_again)
def corrected_sweep(findings: "Findings", valid: str, judge: Judge) -> "Sweep":
    """Every head of the model ablated under the condition, under the corrected protocol only."""
    corrected_only(findings.bench, judge)
    return findings.sweep(valid)


@pytest.fixture
def stepnorms(corrected: None, model: "Bench", valid: str, trio: "tuple[Head, ...]") -> "StepNorms":
    """Step norms of the residual stream at the output of the trio's layer, triples zeroed."""
    from tinyablation.analysis.step_norms import stepnorms

    return stepnorms(model, valid, trio)


@pytest.fixture
@remade(zeroed_again, NOT_OF_FORECASTS)
def zeroed_trio(
    corrected: None, findings: "Findings", valid: str, trio: "tuple[Head, ...]"
) -> "Coalitions":
    """Some examples of both splits, with and without the trio, which is the only set."""
    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.interventions.head_sets import TrioZeroed

    found = findings.effects(valid, TrioZeroed(trio))
    plain = (found.model, found.condition, found.table, found.noise_floor, found.seed, found.runs)
    return Coalitions(*plain)


@pytest.fixture
@remade(heads_again)
def binding(findings: "Findings", judge: Judge) -> "Sweep":
    """Every head zeroed on the corpus "binding", if the model can do the task.

    The gate needs only the unhooked model, so a model that cannot costs little.
    """
    from tinyablation.corpora.examples import BINDING
    from tinyablation.measurement.validity import Tables, blocks, condition_validity
    from tinyablation.verdicts.verdicts import blocked

    model = findings.bench
    corrected_only(model, judge)
    lacking = model.library.lacks(model.facts.folder, BINDING, model.entry.id)
    if lacking is not None:
        judge(blocked(lacking))
    corpus, _ = model.corpus(BINDING)
    has_null = all(example.null for example in corpus.examples)
    tables = Tables(
        model.run(BINDING, "baseline").table(),
        model.run(BINDING, "corrupt").table(),
        model.run(BINDING, "null").table() if has_null else None,
    )
    validity = condition_validity(tables, seed=model.seed)
    if blocks(validity):
        judge(blocked(f"{model.entry.id} does not bind: {validity.reason}"))
    return findings.sweep(BINDING)


@pytest.fixture
def checkpoints(model: "Bench", judge: Judge) -> None:
    """Block the claim if no checkpoints of the model's training are registered."""
    from tinyablation.verdicts.verdicts import blocked

    if not model.entry.checkpoints:
        judge(blocked(f"no checkpoints of {model.entry.id} are registered"))


@pytest.fixture
def training(
    corrected: None, checkpoints: None, model: "Bench", valid: str, subject: "Subject"
) -> "TrainingTrajectory":
    """The leading head over the checkpoints of the model's training."""
    from tinyablation.analysis.emergence import training_trajectory

    head = subject.suppressor
    return training_trajectory(model, head, valid)


@pytest.fixture
def attention_course(corrected: None, checkpoints: None, model: "Bench") -> "AttentionCourse":
    """Induction and sinks over the checkpoints of the model's training."""
    from tinyablation.analysis import attention_course as course

    return course.attention_course(model)
