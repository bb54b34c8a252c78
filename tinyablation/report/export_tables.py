"""What a person takes away from a session: data as CSV, tables and a summary in Markdown and LaTeX.

Pure functions of records to text. The page has the same text in its packs, row by row, so that its
script can put together what is filtered; `python -m tinyablation report --export` writes files.
Text that others wrote is escaped for the language it goes into.
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tinyablation.characters import named
from tinyablation.records.panels import CurvePanel, ForestPanel, GridPanel, TokensPanel
from tinyablation.records.records import JUDGED, NESTED, VERDICTS, Record, RecordFile
from tinyablation.report.markdown import escaped, one_line
from tinyablation.sessions.foresight import foresight, sentence
from tinyablation.spelling import sentence_of

CELL_COLUMNS = tuple(name for name in Record.model_fields if name not in NESTED)
HEADER = ("Claim", "Test", "Model", "Condition", "Verdict", "Effect", "Unit", "p", "n", "Head")
# What a spreadsheet takes for the beginning of a formula: these signs, and those that it may fold
# into them (NFKC), such as the full-width ones; behind white space and quotation marks, too. It may
# divide cells at other separators than the comma, or at line ends, so each part begins anew.
_SIGNS = (
    "=+@\\-"
    "\ufe62\ufe66\ufe6b\uff0b\uff1d\uff20"  # small, full-width
    "\u207a\u207c\u208a\u208c\ufb29"  # raised, lowered, Hebrew
    "\u2a75\u2a76"  # of several signs
    "\u207b\u208b\u2212\ufe63\uff0d"
)
_FORMULA = re.compile(rf"(?:^|[;|\t\r\n])(?=[\s\"]*[{_SIGNS}])|^(?=[\t\r])")
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # After \\ and \midrule a [ begins an argument and a * a variant; in braces they are text.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\0": "{}",  # not in any text: one_line names it
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{OPEN BOX}": r"\textvisiblespace{}",
}
# Two of these are one character in T1 fonts.
_LIGATURE = re.compile(r"([-,'])(?=\1)")


class Table(NamedTuple):
    """A table in one language: its head, one text a cell, its tail. Joined they are a file."""

    head: str
    rows: list[str]
    tail: str

    @property
    def text(self) -> str:
        return "".join((self.head, *self.rows, self.tail))


def tex(text: str) -> str:
    """`text` as LaTeX that prints exactly that text; what LaTeX fonts lack is named (U+2713)."""
    apart = _LIGATURE.sub(lambda found: f"{found[0]}\0", one_line(text))
    return "".join(_tex_character(character) for character in apart)


def _tex_character(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    # T1 fonts have Western letters; of others none can be relied upon.
    if ord(character) < 0x250 and unicodedata.category(character)[0] in "LNPSZ":
        return character
    return f"U+{ord(character):04X}"


def csv_row(values: Iterable[Any]) -> str:
    """One line of CSV (RFC 4180); text is made harmless, numbers and truth values are ours."""
    stream = io.StringIO()
    csv.writer(stream).writerow([_csv(value) for value in values])
    return stream.getvalue()


def _csv(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return _csv_text(value) if isinstance(value, str) else value


def _csv_text(text: str) -> str:
    """Text with hidden characters named, and a ' before what would be a formula."""
    return _FORMULA.sub(lambda found: f"{found[0]}'", named(text, kept="\n\r\t"))


# --- a row a cell --------------------------------------------------------------------------------


def cells_csv(records: Sequence[Record]) -> Table:
    """Everything of a cell that is one figure or one text."""
    rows = [csv_row(getattr(record, name) for name in CELL_COLUMNS) for record in records]
    return Table(csv_row(CELL_COLUMNS), rows, "")


def cells_markdown(records: Sequence[Record]) -> Table:
    """A table of effects, in GitHub's Markdown."""
    head = f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}\n"
    rows = [f"| {' | '.join(map(escaped, _shown(record)))} |\n" for record in records]
    return Table(head, rows, "")


def cells_tex(records: Sequence[Record]) -> Table:
    """A table of effects, as a LaTeX longtable."""
    head = (
        "% needs \\usepackage{booktabs,longtable,textcomp} and \\usepackage[T1]{fontenc}\n"
        "\\begin{longtable}{llllllllll}\n\\toprule\n"
        f"{' & '.join(HEADER)} \\\\\n\\midrule\n\\endhead\n"
    )
    rows = [f"{' & '.join(map(tex, _shown(record)))} \\\\\n" for record in records]
    return Table(head, rows, "\\bottomrule\n\\end{longtable}\n")


def _shown(record: Record) -> tuple[str, ...]:
    """A record's row of the printed tables; intervals without brackets, which Markdown escapes."""
    effect = ""
    if record.effect is not None:
        effect = f"{record.effect:+.3g}"
        if record.low is not None and record.high is not None:
            effect += f" ({record.low:+.3g} to {record.high:+.3g})"
    p = "" if record.p_corrected is None else f"{record.p_corrected:.2g}"
    n = "" if record.n_examples is None else str(record.n_examples)
    return (
        record.claim,
        sentence_of(record.name),
        record.model,
        record.condition,
        record.verdict,
        effect,
        record.unit,
        p,
        n,
        record.subject or "",
    )


# --- the summary ---------------------------------------------------------------------------------


class _Language(NamedTuple):
    escape: Callable[[str], str]
    head: Callable[[Sequence[str]], str]
    row: Callable[[Sequence[str]], str]
    tail: str


_MARKDOWN = _Language(
    escaped,
    lambda names: f"| {' | '.join(names)} |\n|{' --- |' * len(names)}\n",
    lambda items: f"| {' | '.join(items)} |\n",
    "",
)
_LATEX = _Language(
    tex,
    lambda names: (
        "% needs \\usepackage{booktabs,textcomp} and \\usepackage[T1]{fontenc}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}\n\\toprule\n"
        f"{' & '.join(names)} \\\\\n\\midrule\n"
    ),
    lambda items: f"{' & '.join(items)} \\\\\n",
    "\\bottomrule\n\\end{tabular}\n",
)


ENTRIES = "Entries: conditions in which the claim is supported, of those judged (n.j.: none was)."


def summary_markdown(file: RecordFile) -> str:
    """Some sentences on the session, and a table of claims by models."""
    return _summary(file, _MARKDOWN)


def summary_tex(file: RecordFile) -> str:
    """The same as LaTeX, to be pasted into a paper."""
    return _summary(file, _LATEX)


def _summary(file: RecordFile, language: _Language) -> str:
    records = file.records
    models = list(dict.fromkeys(record.model for record in records))
    models = [m.id for m in file.session.models if m.id in models] + [
        name for name in models if name not in {m.id for m in file.session.models}
    ]
    by_place: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for record in records:
        row = by_place.setdefault((record.claim, record.name), {})
        row.setdefault(record.model, Counter())[record.verdict] += 1
    sentences = " ".join(map(language.escape, (*said_of(file), ENTRIES)))
    head = language.head([language.escape(name) for name in ("Claim", *models)])
    rows = [
        language.row(
            [
                language.escape(f"{claim} {sentence_of(name)}"),
                *(_count(found.get(model)) for model in models),
            ]
        )
        for (claim, name), found in by_place.items()
    ]
    return f"{sentences}\n\n{head}{''.join(rows)}{language.tail}"


def _count(verdicts: Counter[str] | None) -> str:
    """ "3/4": supported of judged; what could not be judged is not counted, "n.j." if all of it."""
    if verdicts is None:
        return ""
    judged = sum(verdicts[word] for word in JUDGED)
    return f"{verdicts['supported']}/{judged}" if judged else "n.j."


def said_of(file: RecordFile) -> list[str]:
    """What a paper says of the session: how many cells, verdicts, with what, and how to read it."""
    session, records = file.session, file.records
    verdicts = Counter(str(record.verdict) for record in records)
    counted = ", ".join(f"{verdicts[word]} {word}" for word in VERDICTS if verdicts[word])
    tests = len({record.claim for record in records})
    models = len({record.model for record in records})
    said = [f"{len(records)} test cases ({tests} claims, {models} models): {counted or 'none'}."]
    if session.multiplicity is not None and session.multiplicity.supported:
        found = session.multiplicity
        said.append(
            f"{found.discoveries} of {found.supported} "
            "supported test cases are significant at a false "
            f"discovery rate of {found.alpha:g} over {found.n} tests (closed Benjamini and "
            "Yekutieli)."
        )
    score = foresight(records)
    if score is not None:
        said.append(sentence(score))
    tool = session.versions.get("tinyablation", "")
    said.append(
        f"Measured on {session.device} under the {session.protocol} protocol, "
        f"{session.started[:10]}{f', tinyablation {tool}' if tool else ''}."
    )
    if not session.complete:
        said.append("The run is not complete.")
    return said


# --- what lies within a cell ---------------------------------------------------------------------


def details_csv(records: Sequence[Record]) -> dict[str, str]:
    """Files of what a cell has many of: prompts, heatmaps, curves, tokens, forests, grids."""
    names = ("claim", "test", "model", "condition")
    tables: dict[str, tuple[tuple[str, ...], list[str]]] = {
        "prompts.csv": (("prompt", "target", "foil", "clean_ld", "delta", "split", "kind"), []),
        "heatmaps.csv": (("title", "layer", "head", "delta_ld"), []),
        "curves.csv": (("title", "series", "x_name", "y_name", "x", "y", "low", "high"), []),
        "forests.csv": (("title", "row", "unit", "value", "low", "high"), []),
        "grids.csv": (("title", "row", "column", "value"), []),
        "tokens.csv": (("title", "column", "rank", "token", "logit"), []),
    }
    for record in records:
        cell = (record.claim, record.name, record.model, record.condition)
        for name, values in _within(record):
            tables[name][1].append(csv_row((*cell, *values)))
    return {
        name: "".join((csv_row((*names, *columns)), *rows))
        for name, (columns, rows) in tables.items()
    }


def _within(record: Record) -> Iterable[tuple[str, tuple[Any, ...]]]:
    for e in record.largest:
        values = (e.prompt, e.target, e.foil, e.clean_ld, e.delta, e.split, "largest")
        yield "prompts.csv", values
    for found in record.boundary.found if record.boundary else ():
        simplest = (found.prompt, found.target, found.foil, found.clean_ld, found.delta, "")
        yield "prompts.csv", (*simplest, "counterexample")
    if record.heatmap:
        for layer, row in enumerate(record.heatmap.values):
            for head, value in enumerate(row):
                yield "heatmaps.csv", (record.heatmap.title, layer, head, value)
    for panel in record.panels:
        yield from _of_panel(panel)


def _of_panel(
    panel: TokensPanel | CurvePanel | ForestPanel | GridPanel,
) -> Iterable[tuple[str, tuple[Any, ...]]]:
    if isinstance(panel, TokensPanel):
        for column, tokens in panel.columns.items():
            for rank, token in enumerate(tokens, 1):
                yield "tokens.csv", (panel.title, column, rank, token.token, token.logit)
    elif isinstance(panel, CurvePanel):
        for line in panel.series:
            for at, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
                low = line.low[at] if line.low is not None else None
                high = line.high[at] if line.high is not None else None
                yield "curves.csv", (panel.title, line.name, panel.x, panel.y, x, y, low, high)
    elif isinstance(panel, ForestPanel):
        for each in panel.rows:
            values = (each.name, panel.unit, each.value, each.low, each.high)
            yield "forests.csv", (panel.title, *values)
    else:
        for row, figures in zip(panel.rows, panel.values, strict=True):
            for column, value in zip(panel.columns, figures, strict=True):
                yield "grids.csv", (panel.title, row, column, value)


def by_cell(table: Table, keys: Sequence[str]) -> Mapping[str, Any]:
    """A table as the page's script takes it: its rows by the id of their cell."""
    return {
        "head": table.head,
        "rows": dict(zip(keys, table.rows, strict=True)),
        "tail": table.tail,
    }


def file_name(*parts: str) -> str:
    """Parts as one name of a file, of letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^\w.-]+", "-", "_".join(parts), flags=re.ASCII).strip(".-")[:120] or "figure"
