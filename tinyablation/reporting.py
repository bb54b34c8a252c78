"""The page collaborators read, as a pure function of the records of a session.

`render` computes nothing about models: it counts, sorts and words what was recorded. Records hold
text that others wrote (tokens, prompts, messages), so everything is escaped, control characters are
made visible, and the page forbids itself every request and every script but its own.
"""

import base64
import hashlib
import json
import os
import re
import shlex
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from tinyablation import charts
from tinyablation.errors import TinyAblationError
from tinyablation.records import (
    ALL_CONDITIONS,
    CONDITIONS,
    PublishedFigure,
    Record,
    RecordFile,
    SessionModel,
)

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
_MOST_NESTED = 3  # tables within tables of a claim's details; deeper ones are printed as JSON


class ReportError(TinyAblationError):
    """The report cannot be written; the message names the file."""


def standing(record: Record) -> str:
    """How a verdict stands to its prediction: a key of STANDINGS."""
    if record.verdict == "error" or record.outcome == "error":
        return "error"
    if record.verdict == record.prediction:
        return "as"
    if record.outcome == "skipped" or record.verdict == "blocked":
        return "unjudged"
    if record.prediction is None:
        return "unregistered"
    return (
        "against" if record.outcome == "failed" or record.verdict != "inconclusive" else "unjudged"
    )


def rerun_command(record: Record) -> str:
    """The shell command that repeats one cell."""
    return f"pytest {shlex.quote(record.test)}"


def visible(text: str) -> Markup:
    """Text of a token or prompt with its outer spaces, line ends and control characters shown."""
    body = text.strip(" ")
    lead = len(text) - len(text.lstrip(" ")) if body else len(text)
    trail = len(text) - len(text.rstrip(" ")) if body else 0
    marks = {"\n": "↵", "\r": "␍", "\t": "⇥", "\N{NO-BREAK SPACE}": "⍽"}
    space = Markup('<i class="sp">␣</i>')
    if body.isprintable():  # nearly always, and much faster
        return Markup("").join([space * lead, escape(body), space * trail])
    shown = [space * lead]
    shown += [
        Markup('<i class="sp">{}</i>').format(marks[character])
        if character in marks
        else _harmless(character)
        for character in body
    ]
    return Markup("").join([*shown, space * trail])


def _harmless(text: str) -> Markup:
    """Escaped text in which control and direction characters are named, not obeyed."""
    if text.isprintable():
        return escape(text)
    return Markup("").join(
        Markup('<i class="sp">U+{:04X}</i>').format(ord(character))
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs")
        else escape(character)
        for character in text
    )


def _finalize(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return _harmless(value)
    return value


def sentence_of(name: str) -> str:
    """`test_top_suppressor_leads` as words."""
    return name.removeprefix("test_").replace("_", " ")


def _slug(*parts: str) -> str:
    """A stable id of letters that need no escaping; what had to change is told apart by a hash."""
    text = ".".join(parts)
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return kept if kept == text else f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Cell(NamedTuple):
    """One record with what the page needs to place it."""

    record: Record
    anchor: str
    standing: str
    label: str
    heat: charts.HeatTable | None
    plot: Markup
    figures: list[tuple[str, Any]]
    command: str
    said: str

    @property
    def published_here(self) -> list[PublishedFigure]:
        """Published figures for this model and condition."""
        places = (self.record.condition, ALL_CONDITIONS)
        return [
            figure
            for figure in self.record.published
            if figure.model == self.record.model and figure.condition in places
        ]


class Section(NamedTuple):
    """One test function: what it claims, and its cells for every model and condition."""

    anchor: str
    record: Record  # any of them: the claim's text is the same in all
    title: str
    cells: list[Cell]
    by_place: dict[tuple[str, str], list[Cell]]
    wide: bool
    axis: Markup
    unit: str
    verdicts: Counter[str]
    standings: Counter[str]

    @property
    def published(self) -> list[tuple[str, list[PublishedFigure]]]:
        """The claim's published figures, each once, by (model, source)."""
        groups: dict[str, list[PublishedFigure]] = {}
        for cell in self.cells:
            for figure in cell.record.published:
                group = groups.setdefault(f"{figure.model}, {figure.source}", [])
                if figure not in group:
                    group.append(figure)
        return list(groups.items())


def _cell(record: Record, axes: dict[str, charts.Scale], anchor: str) -> Cell:
    stands = standing(record)
    said = {
        "as": "as predicted",
        "against": f"predicted {record.prediction}",
        "unjudged": f"predicted {record.prediction}" if record.prediction else "no prediction",
        "unregistered": "no prediction",
        "error": f"predicted {record.prediction}" if record.prediction else "no prediction",
    }[stands]
    label = (
        f"{record.claim} {sentence_of(record.name)}, {record.model}, {record.condition}: "
        f"{record.verdict}, {'against its prediction' if stands == 'against' else said}"
    )
    return Cell(
        record=record,
        anchor=anchor,
        standing=stands,
        label=label,
        heat=charts.heat_table(record.heatmap, record.subject) if record.heatmap else None,
        plot=charts.forest_row(record, axes[record.unit]),
        figures=[(key.replace("_", " "), _figure(item)) for key, item in record.details.items()],
        command=rerun_command(record),
        said=said,
    )


def _figure(value: Any, depth: int = 0) -> Any:
    """A detail as the template prints it: text, ("pairs", [...]) or ("rows", columns, [...])."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, dict) and value and depth < _MOST_NESTED:
        return ("pairs", [(key, _figure(item, depth + 1)) for key, item in value.items()])
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(str(_figure(item)) for item in value) or "none"
    if isinstance(value, list) and depth < _MOST_NESTED and all(isinstance(i, dict) for i in value):
        columns = list(dict.fromkeys(key for item in value for key in item))
        rows = [[_figure(item.get(key, ""), depth + 1) for key in columns] for item in value]
        return ("rows", columns, rows)
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _sections(file: RecordFile) -> list[Section]:
    groups: dict[tuple[str, str, bool], list[Record]] = {}
    for record in file.ordered():
        wide = record.condition == ALL_CONDITIONS
        groups.setdefault((record.claim, record.name, wide), []).append(record)
    used: Counter[str] = Counter()

    def unique(anchor: str) -> str:
        used[anchor] += 1
        return anchor if used[anchor] == 1 else f"{anchor}--{used[anchor]}"

    sections = []
    for (claim, name, wide), records in groups.items():
        units = list(dict.fromkeys(r.unit for r in records if r.effect is not None))
        by_unit = {r.unit: [s for s in records if s.unit == r.unit] for r in records}
        axes = {unit: charts.shared_scale(same) for unit, same in by_unit.items()}
        cells = [
            _cell(r, axes, unique("cell-" + _slug(claim, name, r.model, r.condition)))
            for r in records
        ]
        places: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            places.setdefault((cell.record.model, cell.record.condition), []).append(cell)
        sections.append(
            Section(
                anchor=unique("claim-" + _slug(claim, name)),
                record=records[0],
                title=sentence_of(name),
                cells=cells,
                by_place=places,
                wide=wide,
                axis=charts.forest_axis(axes[units[0]]) if len(units) == 1 else Markup(""),
                unit=units[0] if len(units) == 1 else "",
                verdicts=Counter(r.verdict for r in records),
                standings=Counter(cell.standing for cell in cells),
            )
        )
    return sections


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
        column = ModelColumn(model, "model-" + _slug(model.id), badge, meaning, model.below_floor)
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


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
        finalize=_finalize,
    )
    environment.filters.update(
        number=charts.number, p_value=charts.p_value, visible=visible, time=_time
    )
    environment.tests["linkable"] = lambda name: bool(re.fullmatch(r"\w[\w.+-]*", name, re.ASCII))
    return environment


def _time(text: str) -> str:
    return text[:19].replace("T", " ") + " UTC"


def render(file: RecordFile) -> str:
    """The report page: one self-contained HTML document. The same records give the same bytes."""
    sections = _sections(file)
    families = _columns(file)
    columns = [column for group in families.values() for column in group]
    cells = [cell for section in sections for cell in section.cells]
    standings = Counter(cell.standing for cell in cells)
    script = _source("claims.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    return (
        _environment()
        .get_template("claims.html.j2")
        .render(
            title=TITLE,
            file=file,
            session=file.session,
            sections=sections,
            families=families,
            columns=columns,
            competence=_competence([column.model for column in columns]),
            conditions=_conditions(file.records),
            every=ALL_CONDITIONS,
            total=len(cells),
            standings=standings,
            standing_words=STANDINGS,
            verdicts=Counter(cell.record.verdict for cell in cells),
            verdict_words=VERDICTS,
            outcomes=Counter(cell.record.outcome for cell in cells),
            outcome_words=OUTCOMES,
            unjudged_as_predicted=sum(
                cell.standing == "as" and cell.record.verdict in ("blocked", "inconclusive")
                for cell in cells
            ),
            deviations=[cell for cell in cells if cell.standing in ("against", "error")],
            drifted=[cell for cell in cells if cell.record.drift],
            answer=_answer(standings, file.session.complete),
            duration=_duration(file.session.duration_s),
            steps=charts.HEAT_STEPS,
            style=Markup(_source("claims.css")),
            script=Markup(script),
            script_hash=digest,
        )
    )


def write_report(file: RecordFile, path: Path) -> Path:
    """Render to `path` in one step: a reader never sees half a page."""
    page = render(file).encode("utf-8")
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
