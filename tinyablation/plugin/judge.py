"""From a verdict to a pytest outcome, and the record of it.

verdicts/outcomes.py has the tables of what comes of a verdict; this ends a test by them.

A test is xfailed here and nowhere else, after its verdict and figures were compared, so a crash, a
drifted figure or another verdict fails.

Each claim carries one property, PROPERTY, a record as JSON, from set-up on: first "did not finish",
then what `judge` was told, or the error that ended the test. So no selected cell is missing from a
report, even when its worker dies.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pytest
from syrupy.assertion import SnapshotAssertion

from tinyablation.errors import TinyAblationError
from tinyablation.interventions.batteries import PER_RELATION
from tinyablation.plugin.backend_checks import confirmed
from tinyablation.plugin.command_line import command, spelt
from tinyablation.plugin.conditions import condition_options, own_conditions
from tinyablation.plugin.defects import own_details
from tinyablation.plugin.first_registration import prediction_changed
from tinyablation.plugin.next_tokens import with_tokens
from tinyablation.plugin.options import is_claim, keeps_snapshots, protocol
from tinyablation.plugin.predictions import predicted, published, unmatched
from tinyablation.plugin.robustness import examine
from tinyablation.plugin.scope import named_in, scope_of
from tinyablation.plugin.screening_option import screened
from tinyablation.plugin.selection import cell_of, claim_id, read_docstring, refuse
from tinyablation.plugin.session_models import model_options, session_models
from tinyablation.plugin.snapshots import accepted, case_of, compare, uncompared
from tinyablation.plugin.subjects import how_found
from tinyablation.records import records
from tinyablation.records.plain import plain, shortened
from tinyablation.records.records import Record
from tinyablation.verdicts.listener import JudgingError
from tinyablation.verdicts.outcomes import OUTCOMES, ground_of

if TYPE_CHECKING:
    from tinyablation.records.panels import Panel
    from tinyablation.verdicts.verdicts import Verdict

PROPERTY = "tinyablation_claim"  # tests of the project may have a property "claim"
BLOCKED = "blocked: "  # how the reason of such a skip begins
ACCEPT = "if that is right, accept it: --snapshot-update"
# Verdicts that a claim does not hold, as reasons of an xfail word them.
SAID = {"refuted": "refuted", "present": "present, below the smallest effect that counts"}
MEASURED = ("device", "dtype", "weights", "commit", "derived")  # properties too: see measured_with
_METRICS = ("verdict", "effect", "low", "high", "p_corrected", "subject")  # flat, for JUnit XML
_record_key = pytest.StashKey[dict[str, Any]]()
_judged_key = pytest.StashKey[bool]()


class ClaimRefuted(AssertionError):
    """The claim does not hold here, or its effect is not shown to be large enough to count."""


class PredictionMissed(AssertionError):
    """The verdict is another than the one registered beforehand, and none was accepted yet."""


class VerdictChanged(AssertionError):
    """The verdict is another than the one last accepted."""


class FiguresDrifted(AssertionError):
    """Figures differ from their snapshot; in CI also: they have none yet."""


class ModelRequired(AssertionError):
    """This machine cannot provide the model, and --require-models was given."""


class Judge(Protocol):
    """The fixture `judge`; see there."""

    def __call__(
        self,
        verdict: "Verdict",
        *,
        subject: str | None = None,
        details: Mapping[str, Any] | None = None,
        heatmap: Mapping[str, Any] | None = None,
        largest: Sequence[Mapping[str, Any]] = (),
        runs: Sequence[str] = (),
        figures: Mapping[str, Any] | None = None,
        panels: Sequence["Panel | Mapping[str, Any]"] = (),
    ) -> None: ...


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    claims = [item for item in items if is_claim(item)]
    if not claims:
        return
    try:
        complaint = unmatched(config, claims)
        published(claims[0])  # a defect of that file is said before anything is measured
    except TinyAblationError as error:
        complaint = str(error)
    if complaint:
        refuse(config, items, complaint)


# --- one cell's record ---------------------------------------------------------------------------


def rerun_command(item: pytest.Item) -> str:
    """The shell command that runs this cell alone."""
    screened = item.stash[_record_key].get("screened") or [{"asked": None}]
    return records.rerun_command(
        item.nodeid, protocol(item.config), _own_options(item), screen=screened[0]["asked"]
    )


def _own_options(item: pytest.Item) -> list[str]:
    """The options of this session that decide what the cell measures: model, condition and seed."""
    model, condition = cell_of(item)
    options = model_options(item.config, model) + condition_options(item.config, condition)
    option = command(item.config)
    if option.seed:
        options += ["--seed", str(option.seed)]
    if option.per_relation != PER_RELATION:
        options += ["--per-relation", str(option.per_relation)]
    return spelt(item.config, options)


def _first_record(item: pytest.Item) -> dict[str, Any]:
    """The record of a claim that has not been judged: an error, until something better is known."""
    model, condition = cell_of(item)
    claim = claim_id(item)
    prediction = predicted(item)
    function = getattr(item, "function")  # noqa: B009 - pytest.Item does not declare it
    return {
        "claim": claim,
        "family": claim.split(".", 1)[0],
        "test": item.nodeid,
        "name": case_of(item).test,
        **read_docstring(function.__doc__)._asdict(),
        "model": model,
        "condition": condition,
        "protocol": protocol(item.config),
        "verdict": "error",
        "reason": "the test did not finish",
        "prediction": prediction.verdict if prediction else None,
        "predicted_on": prediction.date if prediction else None,
        "accepted": accepted(item) if _has_baseline(item) else None,
        "outcome": "error",
        "published": published(item),
        "details": own_details(item),
        "options": _own_options(item),
    }


def _publish(item: pytest.Item, report: pytest.TestReport | None = None) -> None:
    """Put the item's record on its properties, and a report's copy, in place of the last one."""
    text = json.dumps(item.stash[_record_key], allow_nan=False, ensure_ascii=False)
    lists = [item.user_properties] + ([report.user_properties] if report else [])
    for properties in lists:
        properties[:] = [pair for pair in properties if pair[0] != PROPERTY]
        properties.append((PROPERTY, text))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if is_claim(item):
        item.stash[_record_key] = plain(_first_record(item), "record")
        item.stash[_judged_key] = False
        _publish(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    result = yield
    if is_claim(item) and not item.stash[_judged_key]:
        raise JudgingError(
            f"{item.nodeid} recorded no verdict: a claim ends with one call of judge(verdict)"
        )
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and _record_key in item.stash:
        _note_error(item, call.excinfo.value, call.when)
        _publish(item, report)
    return report


def _note_error(item: pytest.Item, error: BaseException, when: str) -> None:
    """What an exception means for the record: nothing new after `judge`, else blocked or error."""
    record = item.stash[_record_key]
    if isinstance(error, ClaimRefuted | PredictionMissed | VerdictChanged | FiguresDrifted):
        return
    if isinstance(error, pytest.xfail.Exception) and item.stash[_judged_key]:
        return
    if isinstance(error, pytest.skip.Exception | ModelRequired):
        if not item.stash[_judged_key]:
            reason = plain(str(error).removeprefix(BLOCKED))
            record |= {"verdict": "blocked", "reason": reason}
        return
    reason = f"{when}: {type(error).__name__}: {_text_of(error)}"[:2000]
    record |= {"verdict": "error", "reason": plain(reason)}


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of foreign code; pytest reports it, and the session goes on
        return "its text cannot be made"


# --- judge ---------------------------------------------------------------------------------------


@pytest.fixture
def judge(
    request: pytest.FixtureRequest,
    snapshot: SnapshotAssertion,
    record_property: Callable[[str, object], None],
) -> Judge:
    """Record a verdict, compare its figures with their snapshot, and end the test accordingly.

    `judge(verdict, ...)` is the last line of a claim. subject names the head or heads ("0:2");
    details are further figures for the page; heatmap is {"values": layer x head mean change of the
    logit difference, "title"}; largest are prompts {prompt, target, foil, clean_ld, delta, split},
    those of ablated heads as Sweep.extremes gives them, which get their next tokens here;
    runs are run directory names; figures are further numbers to snapshot; panels are token tables
    and curves (tinyablation.records.panels). numpy is converted; NaN raises RecordError.

    Raises VerdictChanged, FiguresDrifted, ClaimRefuted or PredictionMissed (all AssertionErrors),
    xfails or skips: see verdicts/outcomes.py. A second call is a JudgingError.
    """
    item = request.node

    def judge_once(verdict: "Verdict", **given: Any) -> None:
        __tracebackhide__ = True
        if item.stash.get(_judged_key, None) is None:
            raise JudgingError(f"{item.nodeid} is no claim: judge serves tests marked as claims")
        if item.stash[_judged_key]:
            raise JudgingError(f"{item.nodeid} called judge twice: one claim, one verdict")
        given = named_in(verdict) | given
        verdict, checks = confirmed(item, verdict, given.get("runs", ()))
        record = _fill(item, verdict, **given) | checks
        record |= plain(examine(item, verdict, record), "robustness")
        record["prediction_changed"] = prediction_changed(item, record)
        measured = measured_with(item)
        if _has_baseline(item):
            reason = uncompared(screened=bool(record["screened"]), **measured)
            if reason is None:
                figures = _figures(record, given.get("figures"))
                needed = session_models(item.config).is_embedded(record["model"])
                record["drift"] = compare(snapshot, figures, needed=needed)
                if record["accepted"] is not None and command(item.config).update_snapshots:
                    record["accepted"] = accepted(item)
            else:
                record["details"]["snapshot"] = f"not compared: {reason}"
        item.stash[_record_key] = record
        item.stash[_judged_key] = True
        _publish(item)
        for name, value in {**{name: record[name] for name in _METRICS}, **measured}.items():
            if value is not None:
                record_property(name, value)
        _conclude(item, record)

    return judge_once


def _has_baseline(item: pytest.Item) -> bool:
    """Whether the cell is of a kind whose figures are kept in a baseline."""
    model, condition = cell_of(item)
    if not keeps_snapshots(item.config) or protocol(item.config) != "corrected":
        return False
    own = condition in own_conditions(item.config)
    return session_models(item.config).has_baseline(model) and not own


def measured_with(item: pytest.Item) -> dict[str, str | None]:
    """The device and dtype of the cell's model, its weight hash, its commit on the hub, and what
    its weights were made of.

    Empty where a claim asks for no model; they are properties of the test, beside its metrics.
    """
    bench: Any = getattr(item, "funcargs", {}).get("model")
    facts = getattr(bench, "facts", None)
    if facts is None:
        return {}
    return {
        "device": bench.device,
        "dtype": bench.dtype,
        "weights": facts.weight_hash,
        "commit": facts.commit,
        "derived": getattr(facts, "derived", "") or None,
    }


def _fill(
    item: pytest.Item,
    verdict: "Verdict",
    *,
    subject: str | None = None,
    details: Mapping[str, Any] | None = None,
    heatmap: Mapping[str, Any] | None = None,
    largest: Sequence[Mapping[str, Any]] = (),
    runs: Sequence[str] = (),
    figures: Mapping[str, Any] | None = None,
    panels: Sequence["Panel | Mapping[str, Any]"] = (),
) -> dict[str, Any]:
    """The validated record of one verdict, in plain Python."""
    effect, scope = verdict.effect, scope_of(item, verdict, subject)
    margin = getattr(verdict, "margin", None)
    record = item.stash[_record_key] | {
        "verdict": verdict.status,
        "reason": verdict.reason,
        "effect": effect.estimate if effect else None,
        "low": effect.low if effect else None,
        "high": effect.high if effect else None,
        "n_examples": effect.n if effect else None,
        "n_clusters": effect.n_clusters if effect else None,
        "floor": verdict.floor,
        "margin": margin.estimate if margin else None,
        "margin_low": margin.low if margin else None,
        "margin_high": margin.high if margin else None,
        "p_corrected": verdict.p_corrected,
        "p_test": getattr(verdict, "p_test", ""),
        "criteria": list(getattr(verdict, "criteria", ())),
        "p_value": getattr(verdict, "p_value", None),
        "unit": verdict.unit,
        "scope": scope.text,
        "subject": subject,
        "details": {
            **own_details(item),
            **how_found(item),
            **scope.details,
            **verdict.details,
            **(details or {}),
            **(figures or {}),
        },
        "heatmap": heatmap,
        "largest": with_tokens(item, largest),
        "panels": list(panels),
        "runs": list(runs),
        "screened": screened(item),
    }
    filled: dict[str, Any] = plain(Record.model_validate(record), "record")
    return filled | {name: shortened(filled[name]) for name in ("heatmap", "largest", "panels")}


def _figures(record: Mapping[str, Any], figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a snapshot holds of a record."""
    kept = ("verdict", "subject", "effect", "low", "high", "floor", "p_corrected")
    held: dict[str, Any] = {name: record[name] for name in (*kept, "n_examples", "n_clusters")}
    if record["margin"] is not None:
        held |= {name: record[name] for name in ("margin", "margin_low", "margin_high")}
    if figures:
        held["figures"] = plain(figures, "figures")
    return held


def _conclude(item: pytest.Item, record: Mapping[str, Any]) -> None:
    """End the test as the tables of verdicts/outcomes.py say."""
    __tracebackhide__ = True
    verdict, reason, accepted = record["verdict"], record["reason"], record["accepted"]
    drift, prediction, name = record["drift"], record["prediction"], _name(record)
    ground = ground_of(
        verdict,
        accepted=accepted,
        prediction=prediction,
        drifted=bool(drift),
        screened=bool(record["screened"]),
        registered=_is_registered(item, record),
    )
    if OUTCOMES[ground] == "skipped":
        pytest.skip(f"{ground}: {reason}")
    if ground == "changed":
        figures = f"; {ACCEPT}; figures: {drift}" if drift else ""
        said = f"{name} is {verdict}, and the verdict last accepted is {accepted}: {reason}"
        _fail(item, VerdictChanged(said + figures))
    if ground == "drifted":
        _fail(item, FiguresDrifted(f"{name}, against its snapshot: {drift}"))
    if ground == "missed":
        said = f"{name} was predicted {prediction}, and is {verdict}: {reason}"
        _fail(item, PredictionMissed(said))
    if ground == "short" and not item.config.option.runxfail:
        before = ", as before" if accepted else _expected(item, record)
        # Without a traceback, which would show no more than the claim's last line, and takes
        # some milliseconds to make.
        raise pytest.xfail.Exception(f"{SAID[verdict]}{before}: {reason}", pytrace=False)
    if verdict in SAID:
        # unpredicted, or short: of an expected failure --runxfail makes what it would be otherwise.
        _fail(item, ClaimRefuted(f"{name} is {SAID[verdict]}: {reason}"))


def _expected(item: pytest.Item, record: Mapping[str, Any]) -> str:
    """Why a claim that does not hold is no failure, where nothing was accepted yet."""
    if record["prediction"] is not None:
        return ", as predicted"
    if record["protocol"] == "published":
        return " under the published protocol, for which nothing is registered"
    return f"; nothing is registered for {_of(item, record)}"


def _is_registered(item: pytest.Item, record: Mapping[str, Any]) -> bool:
    """Whether a cell of this kind is expected to have a prediction."""
    own = record["condition"] in own_conditions(item.config) or record["protocol"] == "published"
    return not own and session_models(item.config).is_embedded(record["model"])


def _of(item: pytest.Item, record: Mapping[str, Any]) -> str:
    own = record["condition"] in own_conditions(item.config)
    return str(record["condition" if own else "model"])


def _name(record: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (record["claim"], record["model"], record["condition"])))


def _fail(item: pytest.Item, error: AssertionError) -> NoReturn:
    __tracebackhide__ = True
    error.add_note(f"run this test case alone: {rerun_command(item)}")
    raise error
