"""Fixtures on a head's output: its tokens and words, and steering along it.

Behind the validity gate, like measurements, and only under the corrected protocol. Readings are
documents at their own addresses (tinyablation/runs/documents.py): an existing one needs no torch.
"""

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tinyablation.plugin.judge import Judge
from tinyablation.plugin.measurement_fixtures import corrected_only
from tinyablation.plugin.session_models import registry, session_models
from tinyablation.plugin.subjects import subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinyablation.analysis.head_vocabulary import HeadVocabulary
    from tinyablation.analysis.steering import DoseResponse
    from tinyablation.heads import Head
    from tinyablation.measurement.bench import Bench
    from tinyablation.runs.documents import Reading
    from tinyablation.verdicts.subjects import Subject

TARGET = "facts"  # the condition that the direction is made from and that steering should affect


class Reference(NamedTuple):
    """What the named head of another model writes under the same condition."""

    vocabulary: "HeadVocabulary"
    head: "Head"


class Steered(NamedTuple):
    """Steering along one head's mean output, by condition, for valid conditions only.

    norm: of the direction, in units of the stream; invalid: reasons by condition.
    """

    responses: "dict[str, DoseResponse]"
    head: "Head"
    norm: float
    invalid: dict[str, str]
    runs: tuple[str, ...]


def read_head_vocabulary(
    bench: "Bench", condition: str, head: "Head", split: str
) -> "HeadVocabulary":
    """What every head of the model writes under a condition, for the named one also by cluster."""
    from tinyablation.analysis.head_vocabulary import HeadVocabulary
    from tinyablation.measurement.head_readings import Written

    reading = bench.reading(condition, Written(head, split))
    return HeadVocabulary(reading, (reading.name,))


def read_direction(bench: "Bench", head: "Head") -> "Reading":
    """The head's mean output at the last token of the facts' discovery prompts, [d_model]."""
    from tinyablation.measurement.head_readings import Direction

    return bench.reading(TARGET, Direction(head))


def steer(bench: "Bench", condition: str, head: "Head") -> "DoseResponse":
    """The response of a condition to the head's direction, and to controls of the same norm."""
    from tinyablation.analysis.findings import Findings
    from tinyablation.analysis.steering import DoseResponse
    from tinyablation.files.hashes import digest
    from tinyablation.interventions.batteries import Steering
    from tinyablation.interventions.directions import CONTROLS, OV
    from tinyablation.measurement.head_readings import SteeringDirections

    source = read_direction(bench, head)
    # The source's address covers facts, split, weights and seed; controls depend on the seed alone.
    made_from = digest([source.config.hash, *CONTROLS])[:8]
    battery = Steering(head[0], f"{head[0]}.{head[1]}-{made_from}", (OV, *CONTROLS))
    directions = SteeringDirections(head, TARGET)
    return DoseResponse(Findings(bench).effects(condition, battery, directions=directions), head[0])


@pytest.fixture
def ov(corrected: None, model: "Bench", valid: str, subject: "Subject") -> "HeadVocabulary":
    """What the model's heads write at the last token of the condition's confirmation prompts."""
    from tinyablation.corpora.examples import CONFIRMATION

    return read_head_vocabulary(model, valid, subject.suppressor, CONFIRMATION)


@pytest.fixture(scope="session")
def reference_bench(request: pytest.FixtureRequest, model: "Bench") -> "Iterator[Bench | None]":
    """The bench of the model that this one's head is compared with; None if none is declared."""
    declared = subjects(request.config).for_model(model.entry.id)
    if declared is None or declared.reference is None:
        yield None
        return
    bench = model.like(registry(request.config)[declared.reference])
    yield bench
    bench.release()


@pytest.fixture
def reference(
    request: pytest.FixtureRequest,
    model: "Bench",
    reference_bench: "Bench | None",
    condition: str,
    judge: Judge,
) -> Reference:
    """What the reference model's named head writes under this condition."""
    from tinyablation.corpora.examples import CONFIRMATION
    from tinyablation.models.loading import WeightsMissing
    from tinyablation.verdicts.verdicts import blocked

    corrected_only(model, judge)
    if reference_bench is None:
        judge(blocked(f"{model.entry.id} is compared with no other model: it names no reference"))
    assert reference_bench is not None
    name = reference_bench.entry.id
    if reference_bench.entry.is_named_only and name not in session_models(request.config).named:
        # A model that was not named is never downloaded, not even for a comparison.
        judge(blocked(f"it is compared with {name}, which this session does not name: name both"))
    declared = subjects(request.config).for_model(name)
    if declared is None:
        judge(blocked(f"subjects.toml names no head for the reference {name}"))
    assert declared is not None
    try:
        reason = reference_bench.gate.reason_blocked(condition)
    except WeightsMissing as missing:
        judge(blocked(f"the reference: {missing}"))
    if reason is not None:
        judge(blocked(f"{condition} is not valid for the reference {name}: {reason}"))
    head = declared.suppressor
    return Reference(read_head_vocabulary(reference_bench, condition, head, CONFIRMATION), head)


@pytest.fixture
def steerable(model: "Bench", judge: Judge) -> dict[str, str]:
    """Condition -> why it is not valid for the model; steering leaves these out.

    The claim is blocked if TARGET is among them, or all other conditions are.
    """
    from tinyablation.corpora.examples import CONDITIONS
    from tinyablation.verdicts.verdicts import blocked

    corrected_only(model, judge)
    invalid = {
        name: reason
        for name in CONDITIONS
        if (reason := model.gate.reason_blocked(name)) is not None
    }
    if TARGET in invalid:
        judge(blocked(f"{TARGET} is not valid for {model.entry.id}: {invalid[TARGET]}"))
    if len(invalid) == len(CONDITIONS) - 1:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in invalid.items())
        judge(blocked(f"no condition but {TARGET} is valid, so none can be spared: {reasons}"))
    return invalid


@pytest.fixture
def steered(model: "Bench", steerable: dict[str, str], subject: "Subject") -> Steered:
    """Steering along the named head's output, under every condition valid for the model."""
    from tinyablation.corpora.examples import CONDITIONS

    invalid = steerable
    head = subject.suppressor
    source = read_direction(model, head)
    responses = {name: steer(model, name, head) for name in CONDITIONS if name not in invalid}
    runs = (source.name, *(name for each in responses.values() for name in each.runs))
    return Steered(responses, head, float(source.document()["vector_norm"]), invalid, runs)
