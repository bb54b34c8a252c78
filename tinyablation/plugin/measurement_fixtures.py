"""Fixtures for measurements: sweeps, coalitions, patches, paths, the unhooked model.

All but `unhooked` are behind the validity gate: if a condition is invalid for a model, they record
the verdict "blocked" with the reason, and the claim's body does not run. The published protocol has
no gate, because the study had none.
"""

from typing import TYPE_CHECKING

import pytest

from tinyablation.measurement.protocols import PUBLISHED
from tinyablation.plugin.judge import Judge
from tinyablation.plugin.multiverse import (
    coalitions_again,
    each_sweep_again,
    every_subsets_again,
    heads_again,
    methods_again,
    patches_again,
    path_again,
    remade,
    same_in_every_analysis,
    subsets_again,
)
from tinyablation.plugin.session_models import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.analysis.direct_effects import DirectEffects
    from tinyablation.analysis.findings import Findings
    from tinyablation.analysis.knockouts import Knockouts
    from tinyablation.analysis.layer_removal import LayerRemoval
    from tinyablation.analysis.patching import Patches
    from tinyablation.analysis.path_patching import PathEffects
    from tinyablation.analysis.sweeps import Sweep
    from tinyablation.analysis.tracing import Trace
    from tinyablation.heads import Head
    from tinyablation.measurement.bench import Bench
    from tinyablation.measurement.validity import Tables
    from tinyablation.verdicts.subjects import Subject
    from tinyablation.verdicts.verdicts import Verdict

NOT_OF_PATCHES = {
    "metric KL": (
        "KL is taken from what the same prompt gives without a patch, so that the clean and the"
        " corrupt one do not differ in it"
    )
}
LEAST_CONDITIONS = 2  # needed for agreement between conditions


@pytest.fixture(scope="session")
def findings(model: "Bench") -> "Findings":
    """The measurements of the model, as claims read them."""
    from tinyablation.analysis.findings import Findings

    return Findings(model)


@pytest.fixture(scope="session")
def unhooked(model: "Bench", condition: str) -> "Tables":
    """The rows of the unhooked model on clean, corrupt and null prompts."""
    return model.gate.unhooked(condition)


@pytest.fixture(scope="session")
def counting(model: "Bench", condition: str) -> "Tables":
    """Its rows in the families of prompts that count for the model; all rows if none does."""
    return model.gate.counting(condition)


@pytest.fixture(scope="session")
def validity(model: "Bench", condition: str) -> "Verdict":
    """The verdict on whether the condition is valid for the model."""
    return model.gate.judged(condition)


@pytest.fixture
def corrected(model: "Bench", judge: Judge) -> None:
    """Block the claim under the published protocol.

    Request it before fixtures that measure, because finding heads takes a sweep.
    """
    corrected_only(model, judge)


@pytest.fixture
def valid(model: "Bench", condition: str, judge: Judge) -> str:
    """The condition, if it is valid for the model; otherwise the claim is blocked."""
    _require_valid(model, condition, judge)
    return condition


@pytest.fixture
@remade(heads_again)
def sweep(findings: "Findings", valid: str) -> "Sweep":
    """Every head of the model ablated under the condition, if it is valid for the model.

    With --screen only some heads, given by `screened` (tinyablation/analysis/screened_sweeps.py).
    """
    return findings.sweep(valid)


@pytest.fixture
@remade(methods_again)
def methods(findings: "Findings", valid: str) -> "Sweep":
    """The heads of layer 0, ablated by every method, on a subset of the examples."""
    return findings.methods(valid)


@pytest.fixture
@same_in_every_analysis
def valid_conditions(model: "Bench", judge: Judge) -> "list[str]":
    """The named conditions that are valid for the model; with fewer than two, blocked."""
    from tinyablation.corpora.examples import CONDITIONS
    from tinyablation.verdicts.verdicts import blocked

    invalid = {
        name: reason
        for name in CONDITIONS
        if (reason := model.gate.reason_blocked(name)) is not None
    }
    if len(CONDITIONS) - len(invalid) < LEAST_CONDITIONS:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in invalid.items())
        judge(blocked(f"fewer than {LEAST_CONDITIONS} conditions are valid: {reasons}"))
    return [name for name in CONDITIONS if name not in invalid]


@pytest.fixture
@remade(each_sweep_again)
def sweeps(findings: "Findings", valid_conditions: "list[str]") -> "list[Sweep]":
    """The sweeps of all conditions that are valid for the model; also written as one matrix.

    The matrix is not written with --screen, which chooses different heads for each condition.
    """
    from tinyablation.runs.across_conditions import write_cross_condition

    model = findings.bench
    if model.screening is None:
        tables = {name: model.run(name, model.battery) for name in valid_conditions}
        write_cross_condition(model.store, tables)
    return [findings.sweep(name) for name in valid_conditions]


@pytest.fixture
@same_in_every_analysis
def named(model: "Bench", subject: "Subject", judge: Judge) -> "tuple[Head, ...]":
    """The trio, or the pair, that this claim names: heads of one layer."""
    from tinyablation.verdicts.verdicts import blocked

    heads = subject.trio or subject.pair
    if not heads or len({head.layer for head in heads}) != 1:
        judge(blocked(f"no two or three heads of one layer are named for {model.entry.id}"))
    return heads


@pytest.fixture
@remade(subsets_again)
def subsets(findings: "Findings", valid: str, named: "tuple[Head, ...]") -> "Coalitions":
    """The named heads ablated alone, in pairs and all together, on every example."""
    return findings.subsets(valid, named)


@pytest.fixture
@remade(every_subsets_again)
def every_subsets(
    findings: "Findings", valid_conditions: "list[str]", named: "tuple[Head, ...]"
) -> "list[Coalitions]":
    """The named heads ablated alone, in pairs and all together, under every valid condition."""
    return [findings.subsets(name, named) for name in valid_conditions]


@pytest.fixture
@remade(coalitions_again)
def coalitions(findings: "Findings", valid: str, named: "tuple[Head, ...]") -> "Coalitions":
    """All pairs and triples of the named heads' layer, on one example of each cluster."""
    return findings.coalitions(valid, named)


@pytest.fixture
@remade(patches_again, NOT_OF_PATCHES)
def patches(findings: "Findings", valid: str, judge: Judge) -> "Patches":
    """Activations patched both ways between the prompts of aligned pairs that have no mirror."""
    from tinyablation.analysis.findings import MirroredPairs
    from tinyablation.statistics.ratios import RatioUndefined
    from tinyablation.verdicts.verdicts import blocked

    corrected_only(findings.bench, judge)
    try:
        return _with_gap(findings.patches(valid))
    except (MirroredPairs, RatioUndefined) as refusal:
        judge(blocked(str(refusal)))  # ends the test
        raise


@pytest.fixture(scope="session")
def twin(request: pytest.FixtureRequest, model: "Bench") -> "Iterator[Bench | None]":
    """The unplanted twin of a planted model, on its own bench; None for all other models."""
    entries = registry(request.config)
    name = model.entry.twin
    if name is None or model.entry.variant != "hedged" or entries[name].variant != "plain":
        yield None
        return
    bench = model.like(entries[name])
    yield bench
    bench.release()


@pytest.fixture(scope="session")
def twin_findings(twin: "Bench | None") -> "Findings | None":
    """The measurements of the unplanted twin."""
    from tinyablation.analysis.findings import Findings

    return None if twin is None else Findings(twin)


@pytest.fixture
@remade(patches_again, NOT_OF_PATCHES)
def twin_patches(twin_findings: "Findings | None", valid: str) -> "Patches | None":
    """The same patches in the unplanted twin, to be shown; None where they say nothing there."""
    from tinyablation.statistics.ratios import RatioUndefined

    if twin_findings is None or twin_findings.bench.gate.reason_blocked(valid) is not None:
        return None
    try:
        return _with_gap(twin_findings.patches(valid))
    except RatioUndefined:
        return None


def _with_gap(patches: "Patches") -> "Patches":
    """The patches; RatioUndefined if LD does not differ between the two sides of its pairs."""
    from tinyablation.corpora.examples import SPLITS
    from tinyablation.statistics.ratios import RatioUndefined

    for split in SPLITS:
        try:
            patches.whole(split)
        except RatioUndefined as refusal:
            raise RatioUndefined(
                f"LD clean - LD corrupt of {patches.model} on the aligned pairs of "
                f"{patches.condition}, {split}: {refusal}",
                refusal.denominator,
            ) from refusal
    return patches


@pytest.fixture
@remade(path_again)
def paths(corrected: None, findings: "Findings", valid: str, subject: "Subject") -> "PathEffects":
    """The leading head's direct paths into the residual streams of later layers."""
    return findings.paths(valid, subject.suppressor)


@pytest.fixture
def knockout(corrected: None, findings: "Findings", judge: Judge) -> "Callable[..., Knockouts]":
    """knockout(condition, *sets): sets of heads zeroed together; blocked where it is not valid."""

    def measured(condition: str, *sets: "Sequence[Head]") -> "Knockouts":
        _require_valid(findings.bench, condition, judge)
        return findings.knockouts(condition, *sets)

    return measured


@pytest.fixture
def direct_effects(corrected: None, findings: "Findings", valid: str) -> "DirectEffects":
    """What every head writes into LD directly, beside the total effects of the two leaders."""
    return findings.direct_effects(valid)


@pytest.fixture
def trace(corrected: None, findings: "Findings", valid: str) -> "Trace":
    """Noise on the subjects, and outputs of MLPs and attentions put back at their last token.

    They are put back in windows of a fifth of the layers, as in Meng et al. 2022.
    """
    from tinyablation.interventions.tracing import Tracing

    window = findings.bench.facts.n_layers // 10
    return findings.trace(valid, Tracing(("mlp", "attention"), ("subject-last",), window))


@pytest.fixture
def layer_removal(corrected: None, findings: "Findings") -> "LayerRemoval":
    """The loss on text of the whole model, and without each of its layers."""
    return findings.layer_removal()


def _require_valid(model: "Bench", condition: str, judge: Judge) -> None:
    from tinyablation.verdicts.verdicts import blocked

    reason = model.gate.reason_blocked(condition)
    if reason is not None:
        judge(blocked(f"{condition} is not valid for {model.entry.id}: {reason}"))


def corrected_only(model: "Bench", judge: Judge) -> None:
    from tinyablation.verdicts.verdicts import blocked

    if model.protocol == PUBLISHED:
        judge(blocked("measured under the corrected protocol only"))
