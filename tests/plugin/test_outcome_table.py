"""How tests end, whole (verdicts/outcomes.py): verdict x accepted verdict x prediction.

One session of this process holds a test case for each entry, so that it takes a few seconds.
Run: pytest tests/plugin/test_outcome_table.py
"""

import json
import re

import pytest

from tests.plugin.conftest import Suite
from tinyablation.plugin import judge
from tinyablation.verdicts.verdicts import STATUSES

pytest_plugins = ["pytester"]

# Rows: the verdict last accepted. Columns: the verdict, in the order of STATUSES.
ACCEPTED = {
    "supported": ("passed", "failed", "failed", "failed", "failed"),
    "present": ("failed", "xfailed", "failed", "failed", "failed"),
    "refuted": ("failed", "failed", "xfailed", "failed", "failed"),
    "inconclusive": ("failed", "failed", "failed", "skipped", "failed"),
    "blocked": ("failed", "failed", "failed", "failed", "skipped"),
}
# Rows: the prediction, where nothing was accepted.
PREDICTED = {
    "none": ("passed", "failed", "failed", "skipped", "skipped"),
    "supported": ("passed", "failed", "failed", "failed", "skipped"),
    "present": ("failed", "xfailed", "failed", "failed", "skipped"),
    "refuted": ("failed", "failed", "xfailed", "failed", "skipped"),
    "inconclusive": ("failed", "failed", "failed", "skipped", "skipped"),
    "blocked": ("failed", "failed", "failed", "failed", "skipped"),
}
OPEN = ("passed", "xfailed", "xfailed", "skipped", "skipped")
# What ends a claim besides its verdict. All are AssertionErrors or crashes, and none is expected.
FAULTS = {
    "asserts": "assert model == 0, 'of another kind'",
    "crashes": "raise OSError('disk')",
    "drifts": "judge(verdict('refuted', estimate=19.0))",
}
COLUMNS = (*STATUSES, *FAULTS)
MODELS = {f"a-{a}-p-{p}": (a, p) for a in ("none", *STATUSES) for p in ("none", *STATUSES)}
HUB = {
    "hub-none": ("none", "none"),
    "hub-refuted": ("none", "refuted"),
    "hub-accepted": ("present", "supported"),
}
EVERY_MODEL = " or ".join(["p", *HUB])  # those of the hub must be named
FIGURES = {
    **{"subject": None, "effect": 1.0, "low": 0.75, "high": 1.25, "floor": 0.1},
    **{"p_corrected": 0.01, "n_examples": 40, "n_clusters": 20},
}


def expected() -> dict[str, str]:
    """The outcome of every test case under the corrected protocol, by its name."""
    found = {}
    for name, (accepted, prediction) in (MODELS | HUB).items():
        row = PREDICTED[prediction] if accepted == "none" else ACCEPTED[accepted]
        row = OPEN if name == "hub-none" else row
        for verdict, outcome in zip(STATUSES, row, strict=True):
            found[f"test_{verdict}[{name}]"] = outcome
        drifts = row[STATUSES.index("refuted")] if accepted == "none" else "failed"
        found |= {f"test_{fault}[{name}]": "failed" for fault in FAULTS}
        found[f"test_drifts[{name}]"] = drifts
    return found


def error_of(name: str) -> str:
    """What the failure of a test case is called."""
    column, model = re.fullmatch(r"test_(\w+)\[(.*)\]", name).groups()
    accepted, prediction = (MODELS | HUB)[model]
    if column in ("asserts", "crashes"):
        return {"asserts": "AssertionError", "crashes": "OSError"}[column]
    verdict = "refuted" if column == "drifts" else column
    if accepted == "none":
        return "PredictionMissed" if prediction != "none" else "ClaimRefuted"
    return "VerdictChanged" if accepted != verdict else "FiguresDrifted"


@pytest.fixture
def project(pytester, monkeypatch) -> Suite:
    """A miniature project, to be run in this process: a session of its own takes three seconds."""
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS", "CI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "300")  # so that a failure's name is not cut off
    made = Suite(pytester)
    monkeypatch.setattr(made, "run", pytester.runpytest_inprocess)
    return made


def write(project: Suite) -> None:
    """A claim for each column, a model for each row, with what is registered and accepted."""
    bodies = {name: f"judge(verdict({name!r}, reason='the reason'))" for name in STATUSES}
    bodies |= FAULTS
    project.models(*MODELS, hub=HUB)
    project.claims(
        "test_table",
        *(
            project.claim(f"H1.{number}", f"test_{name}", bodies[name], "model, judge, verdict")
            for number, name in enumerate(COLUMNS, 1)
        ),
    )
    both = MODELS | HUB
    patterns = ", ".join(f'"{name}" = "{p}"' for name, (_, p) in both.items() if p != "none")
    numbers = range(1, len(COLUMNS) + 1)
    project.write(
        "claims/predictions.toml", "".join(f'"H1.{n}" = {{ {patterns} }}\n' for n in numbers)
    )
    for name, (accepted, _) in both.items():
        if accepted != "none":
            entry = {"verdict": accepted} | FIGURES
            entries = {f"H1.{n} test_{word} all": entry for n, word in enumerate(COLUMNS, 1)}
            project.write(f"claims/__snapshots__/{name}.json", json.dumps(entries))


def outcomes(project: Suite, folder: str = "reports") -> dict[str, str]:
    return {name: record["outcome"] for name, record in project.records(folder).items()}


def test_every_verdict_against_every_accepted_one_and_every_prediction(project):
    """The verdict accepted decides, whatever was predicted; without one, the prediction does."""
    write(project)
    result = project.run("claims", "-k", EVERY_MODEL, "-rfxs", "--tb=no")
    assert outcomes(project) == expected()
    values = list(expected().values())
    result.assert_outcomes(**{name: values.count(name) for name in set(values)})
    text = result.stdout.str()
    raised = dict(re.findall(r"FAILED \S+::(\S+) - (?:\w+\.)*(\w+):", text))
    assert raised == {name: error_of(name) for name, out in expected().items() if out == "failed"}
    present = "present, below the smallest effect that counts"
    for name, said in {
        "test_refuted[a-refuted-p-supported]": "refuted, as before: the reason",
        "test_present[a-present-p-refuted]": f"{present}, as before: the reason",
        "test_refuted[a-none-p-refuted]": "refuted, as predicted: the reason",
        "test_present[hub-none]": f"{present}; nothing is registered for hub-none: the reason",
    }.items():
        assert re.search(rf"XFAIL \S+::{re.escape(name)} - {re.escape(said)}", text), name
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", text, re.MULTILINE)
    assert set(reasons) == {"inconclusive: the reason", "blocked: the reason"}


def test_exit_0_is_about_regression_alone(project):
    """Every prediction missed, every verdict as accepted: nothing moved."""
    write(project)
    selected = "test_supported and a-supported-p-refuted or test_refuted and a-refuted-p-supported"
    result = project.run("claims", "-k", selected)
    result.assert_outcomes(passed=1, xfailed=1)
    assert result.ret == 0
    assert (
        "2 predictions, all fixed before the measurement: 0 came true (0%)" in result.stdout.str()
    )


def test_an_expected_failure_fails_where_pytest_is_told_to_expect_none(project):
    write(project)
    result = project.run("claims", "-k", "test_refuted and a-refuted-p-none", "--runxfail")
    result.assert_outcomes(failed=1)


@pytest.mark.slow
def test_accepting_another_verdict_makes_it_the_one_that_decides(project):
    write(project)
    case = "test_refuted and a-supported-p-supported"
    result = project.run("claims", "-k", case)
    said = "is refuted, and the verdict last accepted is supported: the reason; if that is right, "
    assert f"{said}accept it: --snapshot-update; figures: verdict" in result.stdout.str()
    project.run("claims", "-k", case, "--snapshot-update-new-only").assert_outcomes(failed=1)
    project.run("claims", "-k", case, "--snapshot-update").assert_outcomes(xfailed=1)
    project.run("claims", "-k", case).assert_outcomes(xfailed=1)
    (record,) = project.records().values()
    assert (record["accepted"], record["prediction"]) == ("refuted", "supported")


def test_what_is_accepted_in_its_first_session_is_held_to_its_prediction_once(project):
    """A miss is seen when the cell is measured, and is none of the next session's business."""
    write(project)
    case = "test_refuted and a-none-p-supported"
    project.run("claims", "-k", case, "--snapshot-update-new-only").assert_outcomes(failed=1)
    result = project.run("claims", "-k", case)
    result.assert_outcomes(xfailed=1)
    assert result.ret == 0


def test_the_published_protocol_has_one_row_whatever_is_registered(project):
    write(project)
    result = project.run("claims", "--protocol", "published", "-k", EVERY_MODEL, "--tb=no")
    columns = dict(zip(STATUSES, OPEN, strict=True)) | dict.fromkeys(FAULTS, "failed")
    columns["drifts"] = "xfailed"  # it is refuted, and no figures are compared
    assert outcomes(project, "reports/published") == {
        f"test_{column}[{name}]": outcome
        for column, outcome in columns.items()
        for name in (*MODELS, *HUB)
    }
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_snapshot_holds_the_verdict_and_all_that_it_rests_on(project, monkeypatch):
    kept, compare = [], judge.compare

    def noting(snapshot, figures, **options):
        kept.append(figures)
        return compare(snapshot, figures, **options)

    monkeypatch.setattr(judge, "compare", noting)
    project.models("tiny-gpt2")
    margin = "made.margin = SimpleNamespace(estimate=0.5, low=0.4, high=0.6)"
    body = f"made = verdict()\n    {margin}\n    judge(made, subject='0:2', figures={{'rank': 1}})"
    imported = "from types import SimpleNamespace\n"
    arguments = "model, judge, verdict"
    project.claims(
        "test_heads",
        imported,
        project.claim("H1.1", "test_with_margin", body, arguments),
        project.claim("H1.2", "test_without", "judge(verdict(), subject='0:2')", arguments),
    )
    project.accept().assert_outcomes(passed=2)
    whole = {"verdict": "supported"} | FIGURES | {"subject": "0:2"}
    margin = {"margin": 0.5, "margin_low": 0.4, "margin_high": 0.6}
    assert kept == [whole | margin | {"figures": {"rank": 1}}, whole]
    records = project.records()
    assert {name: records["test_with_margin[tiny-gpt2]"][name] for name in margin} == margin
    assert json.loads(project.baselines()["tiny-gpt2"])["H1.1 test_with_margin all"] == kept[0]
