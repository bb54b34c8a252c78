"""Blocked cells at the end of a session: grouped by reason, each with a remedy.

Two causes make a session of skips fail (exit 1), each with a line that says so: a model that the
command names by its id but this machine cannot provide, and, with --require-valid, a model of which
no cell was judged except those of V (validity itself).

Runs on the controller, from the records in test reports, so it does not depend on workers. The
groups are not shown with -qq; causes of failure always are.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from tinyablation.characters import printable
from tinyablation.errors import TinyAblationError
from tinyablation.plugin.availability import UNAVAILABLE
from tinyablation.plugin.command_line import command
from tinyablation.plugin.judge import PROPERTY
from tinyablation.plugin.options import is_claims_run, lists_results
from tinyablation.plugin.session_models import named_by_id, session_models
from tinyablation.report.questions import VALIDITY
from tinyablation.report.text import readable
from tinyablation.spelling import counted

_SHOWN = 6  # reasons of one kind that are listed individually

_CHECK = "`python -m tinyablation check {model}` shows what it knows, without a sweep"
_FINDING = "nothing to do: this is a finding about the model"


class Kind(NamedTuple):
    """A kind of reasons: their pattern, a common headline, and what to do."""

    pattern: str
    what: str
    remedy: str


# The first kind that matches a reason is used. A remedy may contain {model}, as given to --model.
KINDS = (
    Kind(
        r"\S+ is not valid for the (twin|reference) ",
        "the condition is not valid for the model that it is compared with",
        "`python -m tinyablation check` of that model shows what it knows",
    ),
    Kind(r"\S+ is not valid for ", "the condition is not valid for the model", _CHECK),
    Kind(
        r"fewer than \d+ conditions are valid|no condition (but \S+ )?is valid",
        "too few conditions are valid for the model",
        _CHECK,
    ),
    Kind(
        r"\S+ does not bind: ",
        "the model does not bind",
        "nothing to do: these claims are about models that can bind",
    ),
    Kind(
        r"no (trio is|three heads are) named|no two or three heads of one layer are named",
        "no three heads are named",
        "name three heads of one layer: --heads L0H7,L0H2,L0H5, or `trio` in subjects.toml",
    ),
    Kind(
        r".*the tokenizer has words for \d+ of \d+ clusters"
        r"|the tokenizer of \S+ has \d+ words with a successor",
        "the tokenizer cuts the condition's words into pieces",
        "nothing to do: these claims are about models with a larger vocabulary",
    ),
    Kind(
        r"the tokenizer cuts \d+ of \d+ words into ",
        "the tokenizer has no words of a few tokens",
        "nothing to do: these claims are about models with a larger vocabulary",
    ),
    Kind(
        r"no head of \S+ (has a prefix-matching score|attends to |is a sink|inducts at the last)"
        r"|no head of \S+ writes successors"
        r"|hardly a head of \S+ is a sink",
        "no head does what the claim's heads do",
        _FINDING,
    ),
    Kind(
        r"too few heads(:| of the layers of .+ do not induct)",
        "the layer has too few heads to compare",
        _FINDING,
    ),
    Kind(
        r"layer 0 of \S+ has \d+ heads",
        "layer 0 has too few heads",
        "name the existing heads: --heads L0H0,L0H1",
    ),
    Kind(
        r"\S+ is compared with no other model|subjects.toml names no head for the reference",
        "no reference is named",
        "name its `reference`, and that one's heads, in subjects.toml",
    ),
    Kind(
        r"it is compared with \S+, which this session does not name",
        "its reference is not part of the session",
        "name both models: --model {model} --model REFERENCE",
    ),
    Kind(
        r"no checkpoints of ",
        "no checkpoints are registered",
        "list `checkpoints` of its training in fixtures/models.toml",
    ),
    Kind(
        r"measured under the corrected protocol only",
        "measured under the corrected protocol only",
        "leave --protocol published out",
    ),
    Kind(
        r"\S+, \S+: \d+ prompts are left",
        "too few prompts are left",
        "its tokenizer splits the words of the corpora; `python -m tinyablation corpora build "
        "--help` tells how corpora are made",
    ),
    Kind(
        r"LD clean - LD corrupt of \S+ on the aligned pairs",
        "the aligned pairs are not told apart",
        _FINDING,
    ),
    Kind(
        r"what patching .* restores and destroys is the same at every layer",
        "patching does the same at every layer",
        _FINDING,
    ),
    Kind(
        r"too few layers: |in \S+ of the examples the window of .* does alone",
        "no window of layers does anything that one of its layers does not do alone",
        _FINDING,
    ),
    Kind(
        r"the heads of layer 0 are not ranked under every condition",
        "the heads of layer 0 do nothing under some condition",
        _FINDING,
    ),
    Kind(
        r"\S+ has no path into layer \d+",
        "the head comes after the layer of the path",
        "name a head of an earlier layer: --heads L0H7",
    ),
    Kind(
        r".*there is no effect to take a share of|.*too near to 0|.*: no room: ",
        "there is no effect to take a share of, or no room for one",
        _FINDING,
    ),
    Kind(
        r"\S+ does not know the answers at step ",
        "it does not know the answers at its last checkpoint",
        _FINDING,
    ),
    Kind(
        r"hedges: ",
        "too few hedges are one token",
        "nothing to do: the tokenizer has no words for this claim",
    ),
)


class Group(NamedTuple):
    """Cells that are blocked for the same reason, or for reasons of one kind."""

    kind: Kind | None
    records: list[Mapping[str, Any]]


def groups(records: Iterable[Mapping[str, Any]]) -> list[Group]:
    """The blocked records grouped by kind of reason, else by reason; the largest group first.

    Reasons that differ only in model, condition, heads and figures count as equal.
    """
    found: dict[str, Group] = {}
    for record in records:
        if record["verdict"] == "blocked":
            kind = kind_of(record["reason"])
            key = kind.pattern if kind else _folded(record)
            found.setdefault(key, Group(kind, [])).records.append(record)
    return sorted(found.values(), key=lambda group: -len(group.records))


def kind_of(reason: str) -> Kind | None:
    """The kind of a reason; None for a reason that itself says what to do."""
    return next((kind for kind in KINDS if re.match(kind.pattern, reason)), None)


def lines_of(group: Group, asked: Mapping[str, str]) -> Iterator[str]:
    """The terminal lines of a group. asked: model id -> the text given to --model."""
    models = list(dict.fromkeys(record["model"] for record in group.records))
    reasons = Counter(record["reason"] for record in group.records)
    common = next(iter(reasons)) if len(reasons) == 1 else _headline(group)
    n = len(group.records)
    are = "is" if n == 1 else "are"
    yield f"{counted(n, 'test case')} of {_few(models)} {are} blocked: {readable(common)}"
    if len(reasons) > 1 and (group.kind is None or group.kind.remedy != _FINDING):
        for reason, count in reasons.most_common(_SHOWN):
            yield f"    {count}: {readable(reason)}"
        if len(reasons) > _SHOWN:
            yield f"    and {len(reasons) - _SHOWN} more reasons of this kind, on the page"
    if group.kind is not None:
        model = asked.get(models[0], models[0]) if len(models) == 1 else "MODEL"
        yield f"    {group.kind.remedy.format(model=model)}"


def _headline(group: Group) -> str:
    return group.kind.what if group.kind else _folded(group.records[0])


def _folded(record: Mapping[str, Any]) -> str:
    """A reason with the cell's own model, condition, heads and figures replaced."""
    text = str(record["reason"])
    for name, instead in ((record["model"], "the model"), (record["condition"], "the condition")):
        if name:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", instead, text)
    return re.sub(r"(?<![\w.-])[-+]?\d[\d.:e+-]*", "…", text)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{len(names)} models ({shown}, ...)"


def unjudged(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Models of which every cell is blocked -> number of cells, without cells of V or no model.

    A model of which only cells of V were selected is not included.
    """
    cells: dict[str, list[bool]] = {}
    for record in records:
        if record["model"] and record["family"] != VALIDITY:
            cells.setdefault(record["model"], []).append(record["verdict"] == "blocked")
    return {model: len(blocked) for model, blocked in cells.items() if all(blocked)}


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or command(config).collectonly or not is_claims_run(config):
        return
    config.pluginmanager.register(Unjudged(config), "tinyablation-unjudged")


class Unjudged:
    """Controller side: collects the blocked cells and reports them at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.payloads: dict[str, str] = {}
        self.missing: dict[str, str] = {}  # by node id: why its model is unavailable
        self.failures: list[str] = []
        self.said: set[str] = set()  # cells whose failure already shows the reason

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY:
                self.payloads[report.nodeid] = str(value)
            elif name == UNAVAILABLE:
                self.missing[report.nodeid] = str(value)

    def records(self) -> dict[str, dict[str, Any]]:
        """The blocked records by node id."""
        return {nodeid: json.loads(payload) for nodeid, payload in self.payloads.items()}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        records = self.records()
        self.failures += self._named_and_missing(records)
        if command(self.config).require_valid:
            self.failures += [
                f"nothing could be judged of {model}: its {counted(count, 'test case')} "
                f"{'is' if count == 1 else 'are'} blocked (--require-valid)"
                for model, count in unjudged(records.values()).items()
            ]
        if self.failures and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _named_and_missing(self, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
        try:
            named = named_by_id(self.config)
        except TinyAblationError:
            return []
        reasons: dict[str, str] = {}
        for nodeid, reason in self.missing.items():
            model = records[nodeid]["model"] if nodeid in records else ""
            if model in named:
                reasons[model] = reason
                self.said.add(nodeid)
        return [f"{model} was named but is not available: {why}" for model, why in reasons.items()]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if lists_results(self.config):
            records = self.records().items()
            found = groups(record for nodeid, record in records if nodeid not in self.said)
            if found:
                terminalreporter.write_sep("-", "blocked: test cases that could not be judged")
                asked = session_models(self.config).chosen
                for line in (line for group in found for line in lines_of(group, asked)):
                    terminalreporter.write_line(printable(line))
        for failure in self.failures:
            terminalreporter.write_line(printable(f"ERROR: {failure}"), red=True)
