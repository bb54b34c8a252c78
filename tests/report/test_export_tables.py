"""What is taken away: complete, escaped for its language, and the same every time.

Run: pytest tests/report/test_export_tables.py
"""

import csv
import io
import json
import re
import sys
import unicodedata

import pytest
from markdown_it import MarkdownIt

from tests.fake_sessions import HOSTILE, fake_session, one_record
from tests.report.test_page import PANELS
from tinyablation.characters import named
from tinyablation.records.records import Record
from tinyablation.report.export_tables import (
    CELL_COLUMNS,
    HEADER,
    by_cell,
    cells_csv,
    cells_markdown,
    cells_tex,
    csv_row,
    details_csv,
    file_name,
    said_of,
    summary_markdown,
    summary_tex,
    tex,
)
from tinyablation.sessions.foresight import foresight, sentence

TEXTS = ("claim", "name", "model", "condition", "reason", "unit", "subject", "statement")
BAD = r'\input{/etc/passwd} $x$ & 50% #1 a_b {c} ~ ^ < > | " Δ −1 ✓'


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_every_cell_and_every_figure_of_it():
    records = fake_session().records
    rows = rows_of(cells_csv(records).text)
    assert list(rows[0]) == list(CELL_COLUMNS)
    assert {"claim", "verdict", "effect", "low", "high", "p_adjusted", "source"} <= set(rows[0])
    assert [row["test"] for row in rows] == [record.test for record in records]
    for row, record in zip(rows, records, strict=True):
        assert row["effect"] == ("" if record.effect is None else repr(record.effect))


SIGNS = [
    chr(point)
    for point in range(sys.maxunicode + 1)
    if unicodedata.normalize("NFKC", chr(point)).startswith(("=", "+", "-", "@"))
]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_text_becomes_a_formula(text):
    (row,) = csv.reader(io.StringIO(csv_row([text, -1.5, None, True]), newline=""))
    assert row == [f"'{text}", "-1.5", "", "yes"]


@pytest.mark.parametrize("sign", [*SIGNS, "\N{MINUS SIGN}"], ids=ascii)
@pytest.mark.parametrize(
    "before", ["", " ", "\n", "\N{NO-BREAK SPACE}\u3000", '"', ' "'], ids=ascii
)
def test_no_sign_behind_nothing_begins_a_formula(sign, before):
    (row,) = csv.reader(io.StringIO(csv_row([f"{before}{sign}1+1"]), newline=""))
    assert row[0].startswith("'")


@pytest.mark.parametrize(
    "before", ["\u200b", "\ufeff", "\x00", "\x1b", "\u202e", "\u3164", "\U000e0020"]
)
def test_what_nobody_sees_hides_no_formula(before):
    (row,) = csv.reader(io.StringIO(csv_row([f"{before}=1+1"]), newline=""))
    assert row == [f"U+{ord(before):04X}=1+1"]


@pytest.mark.parametrize("divider", [",", ";", "|", "\t"])
@pytest.mark.parametrize(
    "text",
    [
        "a;=1+1",
        'a;"=1+1',
        "a|@x",
        "a\t=1",
        "a\n=1+1",
        "a;\u200b=1",
        "a; \uff1d1",
        "\n=1",
        " =1",
        "＝1",
    ],
    ids=ascii,
)
def test_no_part_of_a_cell_begins_a_formula_whatever_divides_cells(text, divider):
    """A spreadsheet asks which sign divides cells, and guesses; its quotation mark is the same."""
    line = csv_row(["x", text, f"{text},b", -1.5, 'say "a"'])
    for row in csv.reader(io.StringIO(line, newline=""), delimiter=divider):
        for cell in row:
            first = cell.lstrip(' "\u3000')[:1]
            assert unicodedata.normalize("NFKC", first) not in ("=", "+", "@"), row
    assert all(
        unicodedata.normalize("NFKC", part.lstrip(' "'))[:1] != "=" for part in line.split("\n")
    )


@pytest.mark.parametrize(
    "text", ["a - b", "0:2, 0:4", "L0H7 raises LD by 0.3; floor 0.1", "x=1", "a,-1"]
)
def test_ordinary_text_and_numbers_stay_as_they_are(text):
    (row,) = csv.reader(io.StringIO(csv_row([text, -0.5, 3, 1e-9]), newline=""))
    assert row == [text, "-0.5", "3", "1e-09"]


def test_text_with_quotes_and_line_ends_stays_one_field():
    (row,) = csv.reader(io.StringIO(csv_row([f'a,"b"\n{HOSTILE}']), newline=""))
    assert row == [f'a,"b"\n{HOSTILE}']


def test_markdown_shows_exactly_the_text_and_runs_nothing():
    record = one_record(model=f"a|b {HOSTILE}", condition="*c*", unit="[u](javascript:x)")
    html = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(cells_markdown([record]).text)
    )
    assert html.count("<tr>") == 2 and html.count("<td>") == len(HEADER)
    assert "<img" not in html and "<em>" not in html and "<a " not in html
    assert "a|b &lt;/script&gt;" in html


def test_tex_prints_exactly_the_text():
    made = tex(BAD)
    assert made == (
        r"\textbackslash{}input\{/etc/passwd\} \$x\$ \& 50\% \#1 a\_b \{c\} \textasciitilde{} "
        r"\textasciicircum{} \textless{} \textgreater{} \textbar{} \textquotedbl{} $\Delta$ $-$1 "
        "U+2713"
    )
    assert tex("a\nb\u202ec") == "a bU+202Ec"
    assert (
        tex("--- `` '' ,, it's -1")
        == "-{}-{}- \\textasciigrave{}\\textasciigrave{} '{}' ,{}, it's -1"
    )


@pytest.mark.parametrize("text", ["[9cm]x", "*[9cm]x", " [9cm]x", "\u200b[9cm]x", "*x", "&[1em]"])
def test_no_cell_is_an_argument_of_the_line_end_before_it(text):
    """After \\\\, and after \\midrule, LaTeX looks for a * and a [, across a line end."""
    made = [
        cells_tex([one_record(claim="H1.1"), one_record(claim=text)]).text,
        summary_tex(fake_session().holding([one_record(claim="H1.1"), one_record(claim=text)])),
    ]
    for document in made:
        assert "9cm" not in text or "{[}9cm{]}x" in document
        assert not re.search(r"(\\\\|\\[a-z]+rule|\\endhead)\s*[*\[]", document)


def test_no_export_holds_what_nobody_sees():
    hidden = "\u202e\u2066\u200b\ufeff\x1b\u3164"
    record = Record.model_validate(
        {
            name: f"{value}{hidden}" if name in TEXTS else value
            for name, value in one_record().model_dump().items()
        }
        | {"panels": PANELS}
    )
    file = fake_session().holding([record])
    session = file.session.model_copy(update={"device": hidden, "started": file.session.started})
    file = file.holding([record], session)
    made = [cells_csv([record]).text, cells_markdown([record]).text, cells_tex([record]).text]
    made += [summary_markdown(file), summary_tex(file), *details_csv([record]).values()]
    for text in made:
        assert named(text, kept="\n\r\t") == text
    assert all("U+202E" in text for text in made[:5])


def test_a_tex_table_has_as_many_columns_as_its_head():
    records = [*fake_session().records[:3], one_record(model=BAD, condition=BAD, unit=BAD)]
    text = cells_tex(records).text
    wanted = len(re.search(r"longtable\}\{(l+)\}", text)[1])
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 1 + len(records)
    assert all(len(re.findall(r"(?<!\\)&", line)) == wanted - 1 for line in rows)


def test_the_summary_counts_what_is_supported_of_what_was_judged():
    def verdicts(*words):
        return [
            one_record(claim="H1.1", name="test_x", model="tiny-gpt2", condition=c, verdict=word)
            for c, word in zip(("facts", "negation", "counterfactual", "logic"), words, strict=True)
        ]

    file = fake_session()
    some = verdicts("supported", "present", "refuted", "blocked")
    text = summary_markdown(file.model_copy(update={"records": some}))
    assert "| H1.1 x | 1/3 |" in text
    assert "4 test cases (1 claims, 1 models): 1 supported, 1 present, 1 refuted" in text
    open_ = verdicts("supported", "present", "inconclusive", "error")
    assert "| H1.1 x | 1/3 |" in summary_markdown(file.model_copy(update={"records": open_}))
    none = verdicts("blocked", "blocked", "blocked", "error")
    assert "| H1.1 x | n.j. |" in summary_markdown(file.model_copy(update={"records": none}))


def test_the_summary_says_what_a_paper_must():
    file = fake_session(complete=False)
    said = " ".join(said_of(file))
    assert "Measured on cpu under the corrected protocol, 2025-03-01" in said
    assert "The run is not complete." in said
    assert sentence(foresight(file.records)) in said
    latex = summary_tex(file)
    assert latex.count("\\\\") == 1 + len({(r.claim, r.name) for r in file.records})
    assert "\\begin{tabular}{lrrrrrrrr}" in latex and "tiny-gpt2-plain" in latex


def test_what_a_cell_has_many_of_is_in_files_of_its_own():
    forest = {"kind": "forest", "title": "f", "unit": "u", "rows": [{"name": "a", "value": 1.0}]}
    grid = {"kind": "grid", "title": "g", "x": "x", "y": "y", "columns": ["c"], "rows": ["r"]}
    panels = [*PANELS, forest, grid | {"values": [[None]]}]
    measured = next(record for record in fake_session().records if record.heatmap)
    record = Record.model_validate(measured.model_dump() | {"panels": panels})
    files = {name: rows_of(text) for name, text in details_csv([record]).items()}
    assert {name: len(rows) for name, rows in files.items()} == {
        "prompts.csv": 6,
        "heatmaps.csv": 32,
        "curves.csv": 4,
        "forests.csv": 1,
        "grids.csv": 1,
        "tokens.csv": 5,
    }
    for rows in files.values():
        assert {row["model"] for row in rows} == {record.model}
    assert HOSTILE in {row["token"] for row in files["tokens.csv"]}
    assert sorted(float(row["delta_ld"]) for row in files["heatmaps.csv"]) == sorted(
        value for row in record.heatmap.values for value in row
    )


def test_rows_can_be_put_together_by_cell():
    records = fake_session().records[:3]
    table = cells_csv(records)
    parts = json.loads(json.dumps(by_cell(table, list("abc"))))
    assert (
        parts["head"] + "".join(parts["rows"][key] for key in "abc") + parts["tail"] == table.text
    )


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("H1.1", "leads", "forest"), "H1.1_leads_forest"),
        (("../../etc", "pass wd"), "etc_pass-wd"),
        (("", "é"), "_"),
        (("..",), "figure"),
    ],
)
def test_names_of_files_stay_in_their_folder(parts, name):
    assert file_name(*parts) == name
