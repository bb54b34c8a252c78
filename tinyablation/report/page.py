"""The page collaborators read, as a pure function of the records of a session.

`render` computes nothing about models: it counts, sorts and words what was recorded. Records hold
text that others wrote (tokens, prompts, messages), so everything is escaped, control characters are
made visible, and the page forbids itself every request and every script but its own.

The rows of cells, what a cell opens, and what can be downloaded lie in packs (packs.py), for the
page's script to open: 1,000 cells are too much markup to load at once. The first screen, the matrix
with its verdicts and what each claim says stand without the script.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tinyablation.errors import TinyAblationError
from tinyablation.files.manifests import write_atomic
from tinyablation.records.conditions import LETTERS
from tinyablation.records.error_rates import goals, power_panel
from tinyablation.records.packs import element
from tinyablation.records.records import (
    ALL_CONDITIONS,
    CONDITIONS,
    Record,
    RecordFile,
    Session,
    content_of,
)
from tinyablation.report import curves
from tinyablation.report import export_tables as exports
from tinyablation.report.consistency import check
from tinyablation.report.criteria import ANSWERS as CASE_ANSWERS
from tinyablation.report.drift_tables import Table, notes, tables
from tinyablation.report.findings_table import (
    ANSWERS,
    findings,
    first_and_others,
    questions,
)
from tinyablation.report.heat_tables import HEAT_STEPS
from tinyablation.report.matrix_table import matrix_of
from tinyablation.report.model_columns import KINDS, columns_of, competence
from tinyablation.report.run_links import RunPlace, body_tag, moved, run_places, seen_from
from tinyablation.report.sections import CHANGES, FLAGS, Cell, Section, is_another, sections
from tinyablation.report.text import (
    duration,
    finalize,
    given,
    number,
    p_value,
    readable,
    settled,
    time,
    visible,
)
from tinyablation.report.trust_strip import strip, study_of
from tinyablation.sessions.drift import compare_sessions, summary
from tinyablation.sessions.foresight import foresight, sentence
from tinyablation.sessions.protocol_comparison import (
    FATES,
    MEANING,
    Comparison,
    cell_key,
    compare_protocols,
)
from tinyablation.sessions.reading import RECORDS
from tinyablation.spelling import sentence_of

TITLE = "Claims about language models, tested"

VERDICTS = {
    "supported": "the whole interval lies beyond the threshold, on the side the claim names",
    "present": "the effect is there, but it is not shown to reach the smallest effect that counts",
    "refuted": (
        "the whole interval lies on the other side of the threshold, whatever p is: p tests "
        "whether there is an effect at all"
    ),
    "inconclusive": "the interval contains the threshold: neither can be said",
    "blocked": "not applicable, for its cause: a condition not valid for the model, no weights, …",
    "error": "the test ended in an error before it came to a verdict",
}
OUTCOMES = {
    "passed": "held, as when it was last accepted",
    "xfailed": "did not hold, as when it was last accepted",
    "failed": "another verdict or other figures than accepted; or not as predicted, if none were",
    "skipped": "could not be judged",
    "error": "ended in an error",
}
# Under the published protocol nothing is registered, so nothing is as predicted.
OUTCOMES_UNREGISTERED = {
    "passed": "held",
    "xfailed": "did not hold",
    "failed": "ended in an error",
    "skipped": "could not be judged",
    "error": "ended in an error",
}
OF_SUPPRESSORS = ("H1", "H5")  # families of claims that need the word
STANDINGS = {
    "as": "as predicted",
    "against": "against its prediction",
    "unjudged": "not judged",
    "unregistered": "judged without a prediction",
    "error": "in error",
}


class ReportError(TinyAblationError):
    """The report cannot be written; the message names the file."""


def _conditions(records: Iterable[Record]) -> list[tuple[str, str]]:
    """(condition, its letter) of the matrix, the known ones first; never empty."""
    present = {record.condition for record in records} - {ALL_CONDITIONS}
    ordered = [name for name in CONDITIONS if name in present]
    ordered += sorted(present - set(CONDITIONS))
    return [(name, LETTERS.get(name, name[:2])) for name in ordered or CONDITIONS]


def _answer(records: Sequence[Record], complete: bool) -> str:
    """Whether anything moved since it was last accepted: what the session's exit status says."""
    if not records:
        return "Nothing was judged."
    other = sum(is_another(record) for record in records)
    if other:
        return f"Yes: {other} of {len(records)} test cases have another verdict than accepted."
    drifted = sum(record.drift is not None for record in records)
    if drifted:
        return f"Yes: figures of {drifted} of {len(records)} test cases."
    if any("error" in (record.verdict, record.outcome) for record in records):
        return "Not known: some tests ended in errors."
    known = sum(record.accepted is not None for record in records)
    if not known:
        return "Not known: no verdict has been accepted yet."
    if not complete:
        return "So far, no; the run is not complete."
    return (
        "No." if known == len(records) else f"No, of {known} test cases with an accepted verdict."
    )


def _answer_published(verdicts: Counter[str]) -> str:
    judged = verdicts["supported"] + verdicts["present"] + verdicts["refuted"]
    if not judged:
        return "Nothing could be judged."
    return f"{verdicts['supported']} of {judged} test cases that could be judged are supported."


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
    return (resources.files("tinyablation.report") / "templates" / name).read_text(encoding="utf-8")


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
        number=number,
        p_value=p_value,
        visible=visible,
        time=time,
        sentence=sentence_of,
        readable=readable,
        given=given,
        basename=lambda path: path.rsplit("/", 1)[-1],
    )
    environment.tests["linkable"] = lambda name: bool(re.fullmatch(r"\w[\w.+-]*", name, re.ASCII))
    return environment


class DriftView(NamedTuple):
    """What changed since a baseline, as the page prints it."""

    before: Session
    summary: str
    notes: list[str]
    tables: list[Table]


def packed(file: RecordFile, made: Sequence[Section], rows_of: Any, evidence: Any) -> Markup:
    """The packs of a page: the rows of all sections, the evidence of each, and the downloads.

    rows_of: section -> markup; evidence: (cell, section) -> markup.
    """
    cells = [cell for section in made for cell in section.cells]
    records, keys = [cell.record for cell in cells], [cell.anchor for cell in cells]
    rows = {
        "csv": exports.by_cell(exports.cells_csv(records), keys),
        "md": exports.by_cell(exports.cells_markdown(records), keys),
        "tex": exports.by_cell(exports.cells_tex(records), keys),
    }
    whole = json.dumps(content_of(file), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    parts = [element("cells", {section.anchor: settled(rows_of(section)) for section in made})]
    parts += [
        element(
            section.anchor,
            {
                "cells": {cell.anchor: settled(evidence(cell, section)) for cell in section.cells},
                "forest": settled(section.forest),
            },
        )
        for section in made
    ]
    parts += [
        element("rows", rows),
        element("summary.md", exports.summary_markdown(file)),
        element("summary.tex", exports.summary_tex(file)),
        element(RECORDS, whole),
    ]
    return Markup("\n".join(parts))


def render(
    file: RecordFile,
    other: RecordFile | None = None,
    *,
    baseline: RecordFile | None = None,
    runs: Sequence[str] = ("runs",),
    places: Mapping[str, RunPlace] = MappingProxyType({}),
) -> str:
    """The report page: one self-contained HTML document. The same records give the same bytes.

    other: the session of the other protocol, to be shown beside; baseline: an earlier session of
    the same protocol, since which changes are shown; runs: the folders of run directories, seen
    from the page; places: in which of them each is (default: the first). Raises ValueError if
    `other` is of the same protocol, DriftError if `baseline` is of another.
    """
    comparison = _comparison(file, other)
    drift = None if baseline is None else compare_sessions(baseline, file)
    made = sections(file, comparison, drift)
    cells = [cell for section in made for cell in section.cells]
    context = _page(file, made, cells, comparison)
    context |= {
        "body": body_tag(runs),
        "places": places,
        "nowhere": RunPlace(),
        "drift": drift and DriftView(drift.before, summary(drift), notes(drift), tables(drift)),
    }
    environment = _environment()
    rows_of, evidence = (
        getattr(environment.get_template(template).make_module(context), macro)
        for template, macro in (
            ("parts.html.j2", "cell_rows"),
            ("evidence.html.j2", "cell_evidence"),
        )
    )
    context["packed"] = packed(file, made, rows_of, evidence)
    return settled(environment.get_template("claims.html.j2").render(context))


def _page(
    file: RecordFile, made: list[Section], cells: list[Cell], comparison: Comparison | None
) -> dict[str, Any]:
    """What the templates print, but for what stands beside the session."""
    families = columns_of(file)
    columns = [column for group in families.values() for column in group]
    asked = questions(made)
    anchors = {cell_key(cell.record): cell.anchor for cell in cells}
    standings = Counter(cell.standing for cell in cells)
    verdicts: Counter[str] = Counter(cell.record.verdict for cell in cells)
    registered = file.session.protocol == "corrected"
    script = _source("claims.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    answer = (
        _answer(file.records, file.session.complete) if registered else _answer_published(verdicts)
    )
    score = foresight(file.records)
    judged = {record.model for record in file.records}
    kinds = {column.model.id: column.kind for column in columns}
    by_kind = {
        kind: [c for c in columns if c.kind == kind and c.model.id in judged] for kind in KINDS
    }
    alpha = file.session.multiplicity.alpha if file.session.multiplicity else None
    return {
        "title": TITLE,
        "study": study_of(file.records),
        "findings": first_and_others(findings(asked, kinds, alpha)),
        "answer_glyphs": ANSWERS,
        "of_suppressors": any(record.family in OF_SUPPRESSORS for record in file.records),
        "kind_words": KINDS,
        "kinds": kinds,
        "by_kind": by_kind,
        "kinds_here": [kind for kind, these in by_kind.items() if these],
        "strip": strip(file, made, kinds),
        "file": file,
        "session": file.session,
        "sections": made,
        "comparison": comparison,
        "anchor_of": lambda record: anchors[cell_key(record)],
        "fate_words": FATES,
        "protocol_words": MEANING,
        "registered": registered,
        "questions": asked,
        "answers": CASE_ANSWERS,
        "matrix": matrix_of(families, file.records),
        "columns": columns,
        "hashes": {model.id: model.weight_hash for model in file.session.models},
        "competence": competence([column.model for column in columns]),
        "conditions": _conditions(file.records),
        "every": ALL_CONDITIONS,
        "total": len(cells),
        "standings": standings,
        "standing_words": STANDINGS,
        "verdicts": verdicts,
        "verdict_words": VERDICTS,
        "outcomes": Counter(cell.record.outcome for cell in cells),
        "outcome_words": OUTCOMES if registered else OUTCOMES_UNREGISTERED,
        "change_words": CHANGES,
        "changed_cells": sum(bool(cell.changes) for cell in cells),
        "flag_words": {
            name: words for name, words in FLAGS.items() if any(name in c.flags for c in cells)
        },
        "conflicts": [cell for cell in cells if cell.rivals],
        "n_conflicts": len({cell_key(cell.record) for cell in cells if cell.rivals}),
        "unjudged_as_predicted": sum(
            cell.standing == "as" and cell.record.verdict in ("blocked", "inconclusive")
            for cell in cells
        ),
        "deviations": [cell for cell in cells if cell.standing in ("against", "error")],
        "drifted": [cell for cell in cells if cell.record.drift],
        "answer": answer,
        "foresight": sentence(score) if score is not None else "",
        "registered_on": sorted({r.predicted_on for r in file.records if r.predicted_on}),
        "duration": duration(file.session.duration_s),
        "alpha": alpha,
        "changed": sum(cell.record.prediction_changed is not None for cell in cells),
        "power_drawing": _power(file),
        "goals": goals(file.session.error_rates) if file.session.error_rates else [],
        "summary": exports.summary_markdown(file),
        "steps": HEAT_STEPS,
        "style": Markup(_source("claims.css")),
        "script": Markup(script),
        "script_hash": digest,
    }


def write_report(
    file: RecordFile,
    path: Path,
    other: RecordFile | None = None,
    *,
    baseline: RecordFile | None = None,
    runs: Sequence[Path] = (),
    checked: bool = True,
) -> Path:
    """Render to `path` in one step: a reader never sees half a page.

    runs: folders of run directories, to be linked from the page (default: runs/ beside it). Raises
    InconsistentError for a record that cannot be true (consistency.py), unless its page is only to
    be compared (checked=False), ReportError if the page cannot be written.
    """
    if checked:
        check(file)
    folders = list(runs) or [path.parent / "runs"]
    page = render(
        file,
        other,
        baseline=baseline,
        runs=seen_from(path, folders),
        places=run_places((name for record in file.records for name in record.runs), folders),
    ).encode("utf-8")
    return _write(path, page)


def copy_report(path: Path, copy: Path, runs: Sequence[Path]) -> Path:
    """The page in another folder too, from where its links to run directories hold as well.

    runs: as write_report took them. Raises ReportError if the copy cannot be written.
    """
    return _write(copy, moved(path.read_bytes(), seen_from(copy, runs)))


def _write(path: Path, page: bytes) -> Path:
    try:
        write_atomic(path, lambda stream: stream.write(page))
    except OSError as error:
        raise ReportError(f"the report cannot be written: {error}") from error
    return path
