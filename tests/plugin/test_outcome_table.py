"""The table of tinyablation/plugin/judge.py, whole: every verdict against every prediction.

One session of this process holds a test case for each entry, so that it takes a second or two.
Run: pytest tests/plugin/test_outcome_table.py
"""

from itertools import permutations

import pytest

from tests.plugin.conftest import Suite
from tinyablation.plugin import judge
from tinyablation.verdicts.verdicts import STATUSES

pytest_plugins = ["pytester"]

TABLE = {
    "none": ("passed", "failed", "skipped", "skipped"),
    "supported": ("passed", "failed", "failed", "skipped"),
    "refuted": ("failed", "xfailed", "failed", "skipped"),
    "inconclusive": ("failed", "failed", "skipped", "skipped"),
    "blocked": ("failed", "failed", "failed", "skipped"),
}
OPEN = ("passed", "xfailed", "skipped", "skipped")
# What ends a claim besides its verdict. All are AssertionErrors or crashes, and none was predicted.
FAULTS = {
    "asserts": "assert model == 0, 'of another kind'",
    "crashes": "raise OSError('disk')",
    "drifts": "judge(verdict('refuted', estimate={estimate}))",
}
COLUMNS = (*STATUSES, *FAULTS)
PREDICTED = {f"model-{row}": row for row in TABLE}
MISSED = {f"missed-{row}-{found}": (row, found) for row, found in permutations(STATUSES, 2)}
HUB = {"hub-none": "none", "hub-refuted": "refuted"}
EVERY_MODEL = "model or missed or hub-none or hub-refuted"  # those of the hub must be named


def expected() -> dict[str, str]:
    """The outcome of every test case under the corrected protocol, by its name."""
    rows = {name: TABLE[row] for name, row in {**PREDICTED, **HUB}.items()}
    rows["hub-none"] = OPEN
    for name, (_, found) in MISSED.items():
        as_known = ["xfailed" if verdict == found else "failed" for verdict in STATUSES]
        rows[name] = (*as_known[:-1], "skipped")
    return {
        f"test_{column}[{name}]": row[COLUMNS.index(column)] if column in STATUSES else "failed"
        for name, row in rows.items()
        for column in COLUMNS
    }


@pytest.fixture
def project(pytester, monkeypatch) -> Suite:
    """A miniature project, to be run in this process: a session of its own takes three seconds."""
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS", "CI"):
        monkeypatch.delenv(variable, raising=False)
    made = Suite(pytester)
    monkeypatch.setattr(made, "run", pytester.runpytest_inprocess)
    return made


def write(project: Suite, *, estimate: float = 1.0) -> None:
    """A claim for each column, a model for each row, with what is registered of them."""
    bodies = {name: f"judge(verdict({name!r}, reason='the reason'))" for name in STATUSES}
    bodies |= {name: text.format(estimate=estimate) for name, text in FAULTS.items()}
    project.models(*PREDICTED, *MISSED, hub=HUB)
    project.claims(
        "test_table",
        *(
            project.claim(f"H1.{number}", f"test_{name}", bodies[name], "model, judge, verdict")
            for number, name in enumerate(COLUMNS, 1)
        ),
    )
    registered = {**PREDICTED, **HUB, **{name: row for name, (row, _) in MISSED.items()}}
    patterns = ", ".join(
        f'"{name}" = "{row}"' for name, row in registered.items() if row in STATUSES
    )
    numbers = range(1, len(COLUMNS) + 1)
    project.write(
        "claims/predictions.toml", "".join(f'"H1.{n}" = {{ {patterns} }}\n' for n in numbers)
    )
    project.write(
        "claims/misses.toml",
        "".join(
            f'[[miss]]\nclaim = "H1.{number}"\ntest = "test_{column}"\nmodel = "{name}"\n'
            f'condition = "all"\npredicted = "{predicted}"\nfound = "{found}"\n'
            for number, column in enumerate(COLUMNS, 1)
            for name, (predicted, found) in MISSED.items()
        ),
    )


def outcomes(project: Suite, folder: str = "reports") -> dict[str, str]:
    return {name: record["outcome"] for name, record in project.records(folder).items()}


def test_every_verdict_against_every_prediction_and_every_known_miss(project):
    """Only ClaimRefuted is expected of a refuted prediction: no other AssertionError is xfailed."""
    write(project)
    project.accept("-k", f"({EVERY_MODEL}) and drifts")
    write(project, estimate=19.0)
    result = project.accept("-k", EVERY_MODEL, "--tb=no")
    assert outcomes(project) == expected()
    values = list(expected().values())
    result.assert_outcomes(**{name: values.count(name) for name in set(values)})


def test_the_published_protocol_has_one_row_whatever_is_registered(project):
    write(project)
    result = project.run("claims", "--protocol", "published", "-k", EVERY_MODEL, "--tb=no")
    columns = dict(zip(STATUSES, OPEN, strict=True)) | dict.fromkeys(FAULTS, "failed")
    columns["drifts"] = "xfailed"  # it is refuted, and no figures are compared
    rows = (*PREDICTED, *MISSED, *HUB)
    assert outcomes(project, "reports/published") == {
        f"test_{column}[{name}]": outcome for column, outcome in columns.items() for name in rows
    }
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_snapshot_holds_the_verdict_and_all_that_it_rests_on(project, monkeypatch):
    kept, compare = [], judge.compare

    def noting(snapshot, figures, **options):
        kept.append(figures)
        return compare(snapshot, figures, **options)

    monkeypatch.setattr(judge, "compare", noting)
    project.models("tiny-gpt2")
    body = "judge(verdict(), subject='0:2', figures={'rank': 1})"
    project.claims("test_heads", project.claim(body=body, arguments="model, judge, verdict"))
    project.accept().assert_outcomes(passed=1)
    assert kept == [
        {
            "verdict": "supported",
            "subject": "0:2",
            "effect": 1.0,
            "low": 0.75,
            "high": 1.25,
            "floor": 0.1,
            "p_corrected": 0.01,
            "n_examples": 40,
            "n_clusters": 20,
            "figures": {"rank": 1},
        }
    ]
