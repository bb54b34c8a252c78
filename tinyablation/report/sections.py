"""The report's cells and sections: one section a test, one cell a record, placed and worded."""

from collections import Counter
from typing import Any, NamedTuple

from markupsafe import Markup

from tinyablation.records.audit import Column, audit
from tinyablation.records.records import (
    ALL_CONDITIONS,
    CONDITIONS,
    PublishedFigure,
    Record,
    RecordFile,
)
from tinyablation.records.trust import Screened
from tinyablation.report import forest_plots as forests
from tinyablation.report.criteria import CriterionRow, criteria_panels, criterion_row
from tinyablation.report.heat_tables import HeatTable, heat_table
from tinyablation.report.panel_views import PanelView, panels_of, view
from tinyablation.report.text import detail, number, slug
from tinyablation.sessions.drift import Drift
from tinyablation.sessions.foresight import came_true
from tinyablation.sessions.protocol_comparison import CellKey, Comparison, cell_key
from tinyablation.sessions.replication import (
    Measured,
    Replication,
    compare,
    measured,
    sign_agreement,
)
from tinyablation.spelling import sentence_of

# Elements of cells have ids such as "cell=H1.1.test_x.tiny-gpt2.facts": the link to one is a query
# of the page's own script too, which adds what is filtered to it (#cell=...&m=tiny-gpt2).
CELL = "cell="
# What a cell can be, against the baseline.
CHANGES = {
    "flipped": "verdict changed",
    "moved": "effect moved beyond its interval",
    "shifted": "effect shifted within its interval",
    "new": "not in the baseline",
}
# What a reader may look for besides verdicts.
FLAGS = {
    "conflict": "merged sessions disagree",
    "fragile": "fragile under other analyses",
    "fails": "fails on some prompts",
    "lost": "supported, not significant at the FDR",
    "edited": "prediction edited after the measurement",
    "other": "another verdict than the one accepted",
    "drifted": "figures moved since accepted",
}
_SIGNS = ("same sign", "opposite sign", "not told from zero")  # of sign_agreement, as printed


def standing(record: Record) -> str:
    """How a verdict stands to its prediction: a key of STANDINGS."""
    if record.verdict == "error" or record.outcome == "error":
        return "error"
    true = came_true(record)
    if true is not None:
        return "as" if true else "against"
    if record.prediction is None and record.verdict not in ("inconclusive", "blocked"):
        return "unregistered"
    return "unjudged"


def is_another(record: Record) -> bool:
    """Whether the verdict is another than the one last accepted for the cell."""
    return record.outcome == "failed" and record.accepted not in (None, record.verdict)


def said_of_screening(screened: Screened) -> str:
    """That a sweep was screened, for a reader: what was measured, and what the rest may hide."""
    bounds = (
        f"at most {hidden.most} ({hidden.share:.1%}) {verb} LD by the minimum effect or more "
        f"({hidden.found} of those drawn by chance do)"
        for verb, hidden in (("raise", screened.raising), ("lower", screened.lowering))
    )
    said = (
        f"{screened.condition}: {screened.measured} of {screened.n_heads} heads measured "
        f"({screened.by_layer} in whole layers, {screened.by_score} by score, "
        f"{screened.by_chance} drawn from the rest by chance). Of the {screened.raising.n} others "
        f"{' and '.join(bounds)}; bounds of {screened.confidence:.0%}."
    )
    if screened.agreement is None:
        return said
    rho = number(screened.agreement, signed=True)
    return f"{said} Rank correlation of score and exact effect over those drawn: {rho}."


class Cell(NamedTuple):
    """One record with what the page needs to place it."""

    record: Record
    anchor: str
    standing: str
    label: str
    heat: HeatTable | None
    plot: Markup
    criteria: list[CriterionRow]
    compared: list[PanelView]  # the criteria, drawn
    figures: list[tuple[str, Any]]
    raw: list[tuple[str, Any]]  # the record's details
    command: str
    said: str
    panels: list[PanelView]
    replications: list[tuple[PublishedFigure, Replication]]
    other: Record | None  # the same cell under the other protocol
    rivals: list[Record]  # what other merged sessions say of the same cell, and differs
    before: Record | None  # the same cell in the baseline
    changes: list[str]  # what is not as in the baseline: keys of CHANGES
    flags: list[str]  # keys of CHANGES and FLAGS: what the page's filter finds it by

    @property
    def published_here(self) -> list[tuple[PublishedFigure, Replication]]:
        """Published effects for this model and condition."""
        return [pair for pair in self.replications if pair[0].quantity == "effect"]


class Beside(NamedTuple):
    """A measured figure beside a published one of the same model and condition."""

    cell: Cell
    test: str  # which test measured it, where a claim has several
    found: Measured | None
    replication: Replication


class PublishedRow(NamedTuple):
    """One published figure of a claim, what was measured of it, and how other models' signs go."""

    figure: PublishedFigure
    beside: list[Beside]
    why: str  # nothing is beside it
    elsewhere: str  # how the signs of other models stand to it, in words


class Section(NamedTuple):
    """One test function: what it claims, and its cells for every model and condition."""

    anchor: str
    claim_anchor: str  # the claim's id, at its first test only; else ""
    record: Record  # any of them: the claim's text is the same in all
    title: str
    cells: list[Cell]
    by_place: dict[tuple[str, str], list[Cell]]
    wide: bool
    axis: Markup
    forest: Markup
    unit: str
    verdicts: Counter[str]
    standings: Counter[str]
    published: list[PublishedRow]  # of the claim; at its first test only
    published_at: str  # the section that has them; "" where the claim has none
    audit: tuple[Column, ...]

    @property
    def p_name(self) -> str:
        """The head of the column of p values: with the test that made them, if one made all."""
        tests = {c.record.p_test for c in self.cells if c.record.p_corrected is not None}
        return ", ".join(["p", *(tests if len(tests) == 1 else ())]).removesuffix(", ")


def cell_anchor(claim: str, name: str, model: str, condition: str) -> str:
    """Where a test case is on the page, unless others are called alike."""
    return CELL + slug(claim, name, model, condition)


def _cell(record: Record, plot: Markup, anchor: str, context: "_Context") -> Cell:
    stands = standing(record)
    said = {
        "as": "as predicted",
        "against": f"predicted {record.prediction}",
        "unjudged": f"predicted {record.prediction}" if record.prediction else "no prediction",
        "unregistered": "no prediction",
        "error": f"predicted {record.prediction}" if record.prediction else "no prediction",
    }[stands]
    if record.protocol == "published":  # nothing can be predicted there
        said = "broken" if stands == "error" else ""
    stance = "against its prediction" if stands == "against" else said
    key = cell_key(record)
    rivals = [rival for rival in context.by_key[key] if rival != record]
    changes = context.changes.get(key, [])
    words = [
        stance,
        *(["prediction edited"] if record.prediction_changed else []),
        *(["sessions disagree"] if rivals else []),
        *(CHANGES[name] for name in changes),
    ]
    label = (
        f"{record.claim} {sentence_of(record.name)}, {record.model}, {record.condition}: "
        f"{', '.join(filter(None, (record.verdict, *words)))}"
    )
    return Cell(
        record=record,
        anchor=anchor,
        standing=stands,
        label=label,
        heat=heat_table(record.heatmap, record.subject) if record.heatmap else None,
        plot=plot,
        criteria=[criterion_row(each) for each in record.criteria],
        compared=criteria_panels(record, anchor),
        figures=[
            *(
                [("beyond the minimum effect", _margin(record))]
                if record.margin is not None
                else []
            ),
            *([("generalises over", record.scope)] if record.scope else []),
            *(("screened sweep", said_of_screening(each)) for each in record.screened),
        ],
        raw=[(name.replace("_", " "), detail(item)) for name, item in record.details.items()],
        command=record.command,
        said=said,
        panels=[
            view(panel, f"{anchor}--panel-{number}")
            for number, panel in enumerate(panels_of(record), 1)
        ],
        replications=[
            (figure, compare(record, figure))
            for figure in record.published
            if (figure.model, figure.condition) == (record.model, record.condition)
        ],
        other=context.others.get(key),
        rivals=rivals,
        before=context.before.get(key),
        changes=changes,
        flags=[*changes, *_flags(record, rivals, context.alpha)],
    )


def _margin(record: Record) -> str:
    """The effect beyond the floor by example, whose interval decides."""
    said = number(record.margin or 0.0, signed=True)
    if record.margin_low is not None and record.margin_high is not None:
        low, high = (number(end, signed=True) for end in (record.margin_low, record.margin_high))
        said += f" [{low}, {high}]"
    return f"{said} {record.unit}, by example; this interval decides".replace("  ", " ")


def _flags(record: Record, rivals: list[Record], alpha: float | None) -> list[str]:
    found = {
        "conflict": bool(rivals),
        "fragile": record.multiverse is not None and record.multiverse.fragile,
        "fails": record.boundary is not None and record.boundary.failed > 0,
        "lost": record.verdict == "supported"
        and None not in (alpha, record.p_adjusted)
        and (record.p_adjusted or 0.0) > (alpha or 0.0),
        "edited": record.prediction_changed is not None,
        "other": is_another(record),
        "drifted": bool(record.drift),
    }
    return [name for name in FLAGS if found[name]]


class _Context(NamedTuple):
    """What stands beside a cell, by its key."""

    by_key: dict[CellKey, list[Record]]
    others: dict[CellKey, Record]
    before: dict[CellKey, Record]
    changes: dict[CellKey, list[str]]
    alpha: float | None  # of discoveries, where the session has a ledger


def _context(file: RecordFile, comparison: Comparison | None, drift: Drift | None) -> _Context:
    by_key: dict[CellKey, list[Record]] = {}
    for record in file.records:
        by_key.setdefault(cell_key(record), []).append(record)
    others = {}
    for test in comparison.tests if comparison else ():
        for pair in test.pairs:
            published = file.session.protocol == "corrected"
            others[cell_key(pair.corrected)] = pair.published if published else pair.corrected
    before: dict[CellKey, Record] = {}
    changes: dict[CellKey, list[str]] = {}
    for name, compared in (
        ("flipped", drift.verdicts if drift else []),
        ("moved", drift.moved if drift else []),
        ("shifted", drift.shifted if drift else []),
    ):
        for one in compared:
            key = cell_key(one.after)
            before[key] = one.before
            changes.setdefault(key, []).append(name)
    for record in drift.added if drift else ():
        changes[cell_key(record)] = ["new"]
    ledger = file.session.multiplicity
    return _Context(by_key, others, before, changes, ledger.alpha if ledger else None)


def _published(cells: list[Cell]) -> list[PublishedRow]:
    """The figures published for the claim of `cells`, each once, beside what was measured."""
    figures: list[PublishedFigure] = []
    for cell in cells:
        figures += [figure for figure in cell.record.published if figure not in figures]
    models = [figure.model for figure in figures]
    places = {name: rank for rank, name in enumerate((*CONDITIONS, ALL_CONDITIONS))}
    figures.sort(
        key=lambda figure: (
            models.index(figure.model),
            places.get(figure.condition, len(places)),
        )
    )
    tests = {cell.record.name for cell in cells}
    rows = []
    for figure in figures:
        beside = []
        for cell in cells:
            record = cell.record
            if (record.model, record.condition) == (figure.model, figure.condition):
                found = measured(record, figure.quantity)
                test = sentence_of(record.name) if len(tests) > 1 else ""
                shown = None if isinstance(found, str) else found
                beside.append(Beside(cell, test, shown, compare(record, figure)))
        counts = sign_agreement((cell.record for cell in cells), figure)
        total = sum(counts.values())
        words = [f"{word} in {counts[word]} of {total}" for word in _SIGNS if counts[word]]
        known = any(cell.record.model == figure.model for cell in cells)
        why = "not measured under this condition" if known else "another model"
        rows.append(PublishedRow(figure, beside, why, ", ".join(words)))
    return rows


def sections(
    file: RecordFile, comparison: Comparison | None = None, drift: Drift | None = None
) -> list[Section]:
    """The sections of a page, in the records' canonical order."""
    context = _context(file, comparison, drift)
    groups: dict[tuple[str, str, bool], list[Record]] = {}
    for record in file.records:
        wide = record.condition == ALL_CONDITIONS
        groups.setdefault((record.claim, record.name, wide), []).append(record)
    used: Counter[str] = Counter()

    def unique(anchor: str) -> str:
        used[anchor] += 1
        return anchor if used[anchor] == 1 else f"{anchor}--{used[anchor]}"

    made: list[Section] = []
    begun: set[str] = set()  # claims that have their anchor
    for (claim, name, wide), records in groups.items():
        units = list(dict.fromkeys(r.unit for r in records if r.effect is not None))
        anchors = [unique(cell_anchor(claim, name, r.model, r.condition)) for r in records]
        lines = forests.lines_of(records, anchors)
        by_unit: dict[str, list[forests.Line]] = {}
        for r, line in zip(records, lines, strict=True):
            by_unit.setdefault(r.unit, []).append(line)
        axes = {unit: forests.table_axis(same) for unit, same in by_unit.items()}
        cells = [
            _cell(r, forests.table_row(line, axes[r.unit]), at, context)
            for r, line, at in zip(records, lines, anchors, strict=True)
        ]
        places: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            places.setdefault((cell.record.model, cell.record.condition), []).append(cell)
        anchor = unique("claim-" + slug(claim, name))
        title = f"{claim} {sentence_of(name)}, by model and condition"
        own = "" if claim in begun else unique(_claim_anchor(claim))
        begun.add(claim)
        made.append(
            Section(
                anchor=anchor,
                claim_anchor=own,
                record=records[0],
                title=sentence_of(name),
                cells=cells,
                by_place=places,
                wide=wide,
                axis=forests.table_head(axes[units[0]]) if len(units) == 1 else Markup(""),
                forest=_claim_forest(lines, title, units[0] or "no unit", f"{anchor}-forest")
                if len(units) == 1
                else Markup(""),
                unit=units[0] if len(units) == 1 else "",
                verdicts=Counter(r.verdict for r in records),
                standings=Counter(cell.standing for cell in cells),
                published=[],
                published_at="",
                audit=audit(records, file.session),
            )
        )
    return _with_published(made)


def _claim_anchor(claim: str) -> str:
    """The id of a claim as people write it, "H5.4"; the page's own ids have no dot."""
    return slug(claim) if "." in slug(claim) else f"claim-{slug(claim)}"


def _claim_forest(lines: list[forests.Line], title: str, unit: str, identifier: str) -> Markup:
    caption = Markup("<figcaption>{}</figcaption>").format(title)
    return caption + forests.forest(lines, title, unit, identifier)


def _with_published(made: list[Section]) -> list[Section]:
    """The same sections, the first of each claim with its published figures."""
    firsts: dict[str, str] = {}
    done = []
    for section in made:
        claim = section.record.claim
        if claim not in firsts:
            cells = [cell for one in made if one.record.claim == claim for cell in one.cells]
            rows = _published(cells)
            firsts[claim] = section.anchor if rows else ""
            section = section._replace(published=rows)
        done.append(section._replace(published_at=firsts[claim]))
    return done
