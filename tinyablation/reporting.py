"""The page collaborators read, as a pure function of the records of a session.

`render` computes nothing about models: it counts, sorts and words what was recorded. Records hold
text that others wrote (tokens, prompts, messages), so everything is escaped, control characters are
made visible, and the page forbids itself every request and every script but its own.
"""

import base64
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tinyablation import charts, curves
from tinyablation.comparison import FATES, MEANING, Comparison, cell_key, compare_protocols
from tinyablation.error_rates import power_panel, said_of_goals
from tinyablation.errors import TinyAblationError
from tinyablation.records import ALL_CONDITIONS, CONDITIONS, Record, RecordFile, SessionModel
from tinyablation.sections import sections
from tinyablation.text import duration, finalize, given, sentence_of, slug, time, visible

TITLE = "Claims about language models, tested"

VERDICTS = {
    "supported": "the whole interval lies beyond the floor, on the side the claim names",
    "refuted": "measured well enough, and the claim does not hold",
    "inconclusive": "the interval reaches across the floor: neither can be said",
    "blocked": "not judged: the condition is not valid for this model, or weights are missing",
    "error": "the test broke before it came to a verdict",
}
OUTCOMES = {
    "passed": "held, as predicted",
    "xfailed": "refuted, as predicted",
    "failed": "against its prediction, or figures drifted",
    "skipped": "could not be judged",
    "error": "broke",
}
# Under the published protocol nothing is registered, so nothing is as predicted.
OUTCOMES_UNREGISTERED = {
    "passed": "held",
    "xfailed": "refuted",
    "failed": "broke",
    "skipped": "could not be judged",
    "error": "broke",
}
STANDINGS = {
    "as": "as predicted",
    "against": "against its prediction",
    "unjudged": "not judged",
    "unregistered": "judged without a prediction",
    "error": "broken",
}
VARIANTS = {
    "hedged": (
        "planted",
        (
            "A suppressing head was planted in this model on purpose, by training one layer-0 head "
            "on hedged text. It is the positive control: what holds here shows that the suite can "
            "find such a head, and says nothing about models trained by others."
        ),
    ),
    "plain": (
        "sham",
        (
            "The same procedure on unchanged text, so that nothing was planted. It is the negative "
            "control: no head should pass here."
        ),
    ),
    "natural": ("natural", "Trained by others; nothing was planted by this project."),
}
FAMILIES = {"gpt2": "GPT-2", "mistral": "Mistral", "llama": "Llama", "neox": "GPT-NeoX"}
_LETTERS = {"facts": "F", "negation": "N", "counterfactual": "C", "logic": "L"}


class ReportError(TinyAblationError):
    """The report cannot be written; the message names the file."""


class ModelColumn(NamedTuple):
    """A model of the matrix, and where it is described."""

    model: SessionModel
    anchor: str
    badge: str
    meaning: str
    below: list[str]


def _columns(file: RecordFile) -> dict[str, list[ModelColumn]]:
    """Models by family, families in the order of their first model; unlisted models come last."""
    models = {model.id: model for model in file.session.models}
    for name in sorted({record.model for record in file.records} - set(models)):
        note = "Judged, but not described in the session."
        models[name] = SessionModel(id=name, title=name, family="", variant="", note=note)
    families: dict[str, list[ModelColumn]] = {}
    for model in models.values():
        badge, meaning = VARIANTS.get(model.variant, (model.variant, ""))
        column = ModelColumn(model, "model-" + slug(model.id), badge, meaning, model.below_floor)
        families.setdefault(FAMILIES.get(model.family, model.family or "other"), []).append(column)
    return families


class CompetenceRow(NamedTuple):
    """One truth cell of one condition: the figure of each model, None where it was not measured."""

    condition: str
    cell: str
    figures: list[Any]


def _competence(models: Sequence[SessionModel]) -> list[CompetenceRow]:
    keys = dict.fromkeys(
        (condition, cell)
        for model in models
        for condition, cells in model.competence.items()
        for cell in cells
    )
    known = [key for name in CONDITIONS for key in keys if key[0] == name]
    rows = []
    for condition, cell in known + [key for key in keys if key[0] not in CONDITIONS]:
        names = {f"{condition}{sign}{cell}" for sign in "/:. -"} | {f"{condition}, {cell}"}
        figures = []
        for model in models:
            figure = model.competence.get(condition, {}).get(cell)
            below = bool(names & set(model.below_floor)) or condition in model.below_floor
            figures.append(figure and (figure, below))
        rows.append(CompetenceRow(condition, cell, figures))
    return rows


def _conditions(records: Iterable[Record]) -> list[tuple[str, str]]:
    """(condition, its letter) of the matrix, the known ones first; never empty."""
    present = {record.condition for record in records} - {ALL_CONDITIONS}
    ordered = [name for name in CONDITIONS if name in present]
    ordered += sorted(present - set(CONDITIONS))
    return [(name, _LETTERS.get(name, name[:2])) for name in ordered or CONDITIONS]


def _answer(counts: Counter[str], complete: bool) -> str:
    if not sum(counts.values()):
        return "Nothing was judged."
    if counts["against"]:
        return "No: some verdicts are against their prediction."
    if counts["error"] or counts["unregistered"]:
        return "Not known: some tests broke or have no prediction."
    if not counts["as"]:
        return "Not known: nothing could be judged."
    if not complete:
        return "So far, yes; the run is not complete."
    return "Yes, as far as it could be judged." if counts["unjudged"] else "Yes."


def _answer_published(verdicts: Counter[str]) -> str:
    judged = verdicts["supported"] + verdicts["refuted"]
    if not judged:
        return "Nothing could be judged."
    return f"{verdicts['supported']} of {judged} cells that could be judged are supported."


def _comparison(file: RecordFile, other: RecordFile | None) -> Comparison | None:
    if other is None:
        return None
    comparison = compare_protocols(file, other)
    return comparison if comparison.tests or comparison.other_weights else None


def _power(file: RecordFile) -> Markup:
    rates = file.session.error_rates
    panel = power_panel(rates) if rates else None
    return curves.curve(panel, "power") if panel else Markup("")


def _source(name: str) -> str:
    return (resources.files("tinyablation") / "templates" / name).read_text(encoding="utf-8")


def _template(name: str) -> str:
    """A template without what HTML does not need, a quarter of the page: indentation, end tags."""
    text = "\n".join(line.strip() for line in _source(name).splitlines())
    return re.sub(r"</(td|th|tr|li|dt|dd)>", "", text)


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters.update(
        number=charts.number,
        p_value=charts.p_value,
        visible=visible,
        time=time,
        sentence=sentence_of,
        given=given,
    )
    environment.tests["linkable"] = lambda name: bool(re.fullmatch(r"\w[\w.+-]*", name, re.ASCII))
    return environment


def render(file: RecordFile, other: RecordFile | None = None, *, runs: str = "runs") -> str:
    """The report page: one self-contained HTML document. The same records give the same bytes.

    other: the session of the other protocol, to be shown beside; runs: where the run directories
    are, seen from the page. Raises ValueError if `other` is of the same protocol.
    """
    comparison = _comparison(file, other)
    made = sections(file, comparison)
    families = _columns(file)
    columns = [column for group in families.values() for column in group]
    cells = [cell for section in made for cell in section.cells]
    anchors = {cell_key(cell.record): cell.anchor for cell in cells}
    standings = Counter(cell.standing for cell in cells)
    verdicts: Counter[str] = Counter(cell.record.verdict for cell in cells)
    registered = file.session.protocol == "corrected"
    script = _source("claims.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    return (
        _environment()
        .get_template("claims.html.j2")
        .render(
            title=TITLE,
            file=file,
            session=file.session,
            sections=made,
            comparison=comparison,
            anchor_of=lambda record: anchors[cell_key(record)],
            fate_words=FATES,
            protocol_words=MEANING,
            registered=registered,
            runs=runs,
            families=families,
            columns=columns,
            competence=_competence([column.model for column in columns]),
            conditions=_conditions(file.records),
            every=ALL_CONDITIONS,
            total=len(cells),
            standings=standings,
            standing_words=STANDINGS,
            verdicts=verdicts,
            verdict_words=VERDICTS,
            outcomes=Counter(cell.record.outcome for cell in cells),
            outcome_words=OUTCOMES if registered else OUTCOMES_UNREGISTERED,
            unjudged_as_predicted=sum(
                cell.standing == "as" and cell.record.verdict in ("blocked", "inconclusive")
                for cell in cells
            ),
            deviations=[cell for cell in cells if cell.standing in ("against", "error")],
            drifted=[cell for cell in cells if cell.record.drift],
            answer=_answer(standings, file.session.complete)
            if registered
            else _answer_published(verdicts),
            duration=duration(file.session.duration_s),
            alpha=file.session.multiplicity.alpha if file.session.multiplicity else None,
            changed=sum(cell.record.prediction_changed is not None for cell in cells),
            power_drawing=_power(file),
            goals=said_of_goals(file.session.error_rates) if file.session.error_rates else [],
            steps=charts.HEAT_STEPS,
            style=Markup(_source("claims.css")),
            script=Markup(script),
            script_hash=digest,
        )
    )


def write_report(
    file: RecordFile, path: Path, other: RecordFile | None = None, *, runs: str = "runs"
) -> Path:
    """Render to `path` in one step: a reader never sees half a page."""
    page = render(file, other, runs=runs).encode("utf-8")
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(page)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ReportError(f"{path}: the report cannot be written: {error}") from error
    return path
