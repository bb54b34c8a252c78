"""What changed between two sessions, as tables: for a page, a terminal and a step summary."""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinyablation.records.records import Record, Session
from tinyablation.report.markdown import escaped, one_line
from tinyablation.sessions.drift import Cell, Drift, summary

# GitHub drops a step summary of more than 1 MiB whole. Nine tables of 50 rows are at most some
# 80 KiB, so that a night's thirteen models fit into one. The rest stands in the records.
MOST_ROWS = 50
# A reason is a sentence or two; that of an error can be a page.
MOST_CHARACTERS = 300
# Characters of a hash that are shown: 48 bits, as in the addresses of runs.
_HASH = 12


class Table(NamedTuple):
    """A titled table of plain text: what both forms are made of."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


# --- both forms ----------------------------------------------------------------------------------


def tables(drift: Drift) -> list[Table]:
    """What changed, most important first; a table that would be empty is left out."""
    cell = ("claim", "test", "model", "condition")
    found = [
        Table(
            "Verdicts",
            (*cell, "was", "is", "effect was", "effect is", "because"),
            [
                (
                    *_cell(after),
                    before.verdict,
                    after.verdict,
                    _effect(before),
                    _effect(after),
                    after.reason,
                )
                for before, after in drift.verdicts
            ],
        ),
        Table(
            "Effects outside each other's interval",
            (*cell, "verdict", "was", "is"),
            _effects(drift.moved),
        ),
        Table(
            "Effects beyond tolerance, within an interval",
            (*cell, "verdict", "was", "is"),
            _effects(drift.shifted),
        ),
        Table(
            "Heads",
            (*cell, "was about", "is about"),
            [
                (*_cell(after), before.subject or "", after.subject or "")
                for before, after in drift.subjects
            ],
        ),
        Table(
            "Predictions",
            (*cell, "was", "is", "verdict"),
            [
                (
                    *_cell(after),
                    before.prediction or "none",
                    after.prediction or "none",
                    after.verdict,
                )
                for before, after in drift.predictions
            ],
        ),
        Table("New test cases", ("claim", "test", "model", "verdicts"), _grouped(drift.added)),
        Table(
            "Test cases that are gone", ("claim", "test", "model", "verdicts"), _grouped(drift.gone)
        ),
        Table(
            "What was measured with",
            ("what", "model", "was", "is"),
            [
                (change.label, change.model or "", _value(change.before), _value(change.after))
                for change in drift.circumstances
            ],
        ),
        Table(
            "Runs of another address",
            ("model", "test cases", "of"),
            [(row.model, str(row.cells), str(row.of)) for row in drift.remeasured],
        ),
    ]
    return [
        table._replace(rows=[tuple(map(shortened, row)) for row in table.rows])
        for table in found
        if table.rows
    ]


def notes(drift: Drift) -> list[str]:
    """What a reader must know of the two sessions besides what changed."""
    found = [
        f"The {which} session did not finish: test cases may be missing that it would have had."
        for which in drift.partial
    ]
    if drift.disputed:
        n = len(drift.disputed)
        found.append(
            f"Left out: {n} test case{'' if n == 1 else 's'} "
            "on which the sources of a merged session "
            "disagree."
        )
    if drift.unhashed:
        found.append(
            "The weights of these models are not identified in both sessions, so only the "
            f"addresses of their runs tell whether they changed: {', '.join(drift.unhashed)}."
        )
    return found


def _sessions(drift: Drift) -> list[tuple[str, Session]]:
    return [("before", drift.before), ("after", drift.after)]


def _cell(record: Record) -> tuple[str, str, str, str]:
    return (record.claim, record.name.removeprefix("test_"), record.model, record.condition)


def _effect(record: Record) -> str:
    if record.effect is None:
        return "none"
    text = f"{record.effect:+.4g}"
    if record.low is not None and record.high is not None:
        text += f" [{record.low:+.4g}, {record.high:+.4g}]"
    return f"{text} {record.unit}".rstrip()


def _effects(cells: Iterable[Cell]) -> list[tuple[str, ...]]:
    return [
        (*_cell(after), after.verdict, _effect(before), _effect(after)) for before, after in cells
    ]


def _grouped(records: Iterable[Record]) -> list[tuple[str, ...]]:
    """One row a test and model, its conditions side by side: they come and go together."""

    def key(record: Record) -> tuple[str, ...]:
        return _cell(record)[:3]

    return [
        (*test, ", ".join(f"{record.condition}: {record.verdict}" for record in cells))
        for test, cells in itertools.groupby(records, key)
    ]


def shortened(text: str) -> str:
    """At most MOST_CHARACTERS of a text."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _value(text: str | None) -> str:
    if text is None:
        return "none"
    return text[:_HASH] if re.fullmatch(r"[0-9a-f]{40,}", text) else text


# --- Markdown ------------------------------------------------------------------------------------


def as_markdown(drift: Drift) -> str:
    """A sentence, then tables, in GitHub's Markdown."""
    blocks = [escaped(summary(drift))]
    blocks += [f"Note: {escaped(note)}" for note in notes(drift)]
    for table in tables(drift):
        shown, more = table.rows[:MOST_ROWS], len(table.rows) - MOST_ROWS
        lines = [_row(table.header), _row(["---"] * len(table.header))]
        lines += [_row(map(escaped, row)) for row in shown]
        blocks += [f"#### {table.title}", "\n".join(lines)]
        if more > 0:
            blocks.append(f"… and {more} more: see records.json.")
    blocks.append(
        "\n".join(
            f"- {name}: {escaped(f'{session.started}, {session.command}')}"
            for name, session in _sessions(drift)
        )
    )
    return "\n\n".join(blocks) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- the terminal --------------------------------------------------------------------------------


def as_text(drift: Drift) -> str:
    """A sentence, then tables in columns, every row of them."""
    blocks = [one_line(summary(drift))]
    blocks += [f"note: {one_line(note)}" for note in notes(drift)]
    blocks += [
        f"{table.title}\n{as_columns([table.header, *table.rows])}" for table in tables(drift)
    ]
    blocks.append(
        "\n".join(
            f"{name + ':':8}{one_line(f'{session.started}  {session.command}')}"
            for name, session in _sessions(drift)
        )
    )
    return "\n\n".join(blocks) + "\n"


def as_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows for a terminal, each cell as wide as the widest of its column."""
    shown = [[one_line(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
