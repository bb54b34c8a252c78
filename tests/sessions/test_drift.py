"""What changed between two sessions, and the command that shows it.

Run: pytest tests/sessions/test_drift.py
"""

import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.fake_sessions import HOSTILE, fake_session, one_record
from tinyablation.__main__ import main
from tinyablation.records.records import RecordFile, Session, SessionModel, write_records
from tinyablation.report.drift_tables import MOST_ROWS, as_markdown, as_text, tables
from tinyablation.report.markdown import escaped
from tinyablation.report.page import write_report
from tinyablation.sessions.drift import (
    ABSOLUTE,
    RELATIVE,
    Change,
    DriftError,
    Remeasured,
    compare_sessions,
    summary,
    within,
)
from tinyablation.sessions.merging import merge

ROOT = Path(__file__).parents[2]
SHA = "5f2b1c" * 10


def cell(model="gpt2", condition="facts", **changes):
    """A supported record with effect 1 in [0.9, 1.1] logits."""
    fields = {
        "claim": "H1.1",
        "name": "test_x",
        "verdict": "supported",
        "reason": "it is so",
        "prediction": "supported",
        "effect": 1.0,
        "low": 0.9,
        "high": 1.1,
        "unit": "logits",
        "subject": "0:2",
        "runs": [],
    }
    return one_record(model=model, condition=condition, **fields | changes)


def session(*records, hashes=None, repo=None, **changes):
    """A session of these records; hashes: weight hash by model; repo: of its models."""
    fields = {
        "started": "2025-03-01T01:00:00+00:00",
        "command": "pytest claims",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "platform": "Linux",
        "device": "cuda",
        "predictions_hash": SHA,
        "complete": True,
        "models": [
            {
                "id": name,
                "title": "",
                "family": "",
                "variant": "",
                "repo": repo,
                "weight_hash": digest,
            }
            for name, digest in ({"gpt2": "a" * 64} if hashes is None else hashes).items()
        ],
    }
    return RecordFile.model_validate({"session": fields | changes, "records": list(records)})


def drift_of(before, after, **changes):
    """The drift between two sessions of one cell each."""
    return compare_sessions(session(before), session(after, **changes))


# --- comparison --------------------------------------------------------------------------------


def test_a_session_does_not_differ_from_itself():
    file = fake_session()
    drift = compare_sessions(file, file)
    assert drift.nothing and drift.n_common == len(file.records) > 300
    assert tables(drift) == [] and summary(drift).startswith("Nothing changed: ")


def test_another_start_command_or_end_is_no_change():
    later = {"started": "2025-03-02T01:00:00+00:00", "finished": "2025-03-02T02:00:00+00:00"}
    assert drift_of(cell(), cell(duration_s=9.0), command="pytest -n 4", **later).nothing


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "refuted"},
        {"effect": 5.0, "low": 4.0, "high": 6.0},
        {"effect": 1.05},
        {"subject": "0:5"},
        {"prediction": "refuted"},
        {"runs": ["gpt2-zero-facts_2"]},
        {"condition": "logic"},
    ],
    ids="-".join,
)
def test_each_change_of_a_cell_alone_is_one(changes):
    drift = drift_of(
        cell(runs=["gpt2-zero-facts_1"]), cell(**{"runs": ["gpt2-zero-facts_1"]} | changes)
    )
    assert not drift.nothing and "Nothing" not in summary(drift) and tables(drift)


def test_the_order_of_records_does_not_matter():
    file = fake_session(hostile=False)
    other = file.model_copy(update={"records": fake_session(1).records[20:]})
    found = compare_sessions(file, other)
    turned = [one.holding(one.records[::-1]) for one in (file, other)]
    assert compare_sessions(*turned) == found
    assert found.verdicts and found.moved and found.predictions == [] and len(found.gone) == 20
    assert [pair.after for pair in found.verdicts] == [
        record for record in other.records if record in [pair.after for pair in found.verdicts]
    ]


def test_a_changed_verdict():
    drift = drift_of(cell(), cell(verdict="refuted"))
    ((before, after),) = drift.verdicts
    assert (before.verdict, after.verdict) == ("supported", "refuted")
    assert not drift.nothing and not drift.moved and not drift.shifted


def test_cells_are_told_apart_by_test_claim_model_and_condition():
    first = [cell(), cell(condition="logic"), cell("pythia-1b"), cell(name="test_y")]
    second = [record.model_copy(update={"claim": "H1.2"}) for record in first]
    drift = compare_sessions(session(*first), session(*second, first[1]))
    assert drift.n_common == 1 and len(drift.added) == 4 and len(drift.gone) == 3
    assert {record.claim for record in drift.added} == {"H1.2"}


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_effects_within_the_relative_tolerance_are_the_same(unit):
    wide = {"effect": unit, "low": None, "high": None}
    for times, moved in ((0.9, False), (-0.9, False), (1.1, True), (-1.1, True)):
        drift = drift_of(cell(**wide), cell(**wide | {"effect": unit * (1 + times * RELATIVE)}))
        assert bool(drift.moved) is moved and not drift.shifted


def test_small_effects_are_the_same_within_the_absolute_tolerance():
    wide = {"low": None, "high": None}
    for times, moved in ((0.9, False), (1.1, True)):
        drift = drift_of(cell(effect=0.0, **wide), cell(effect=times * ABSOLUTE, **wide))
        assert bool(drift.moved) is moved


def test_an_effect_moved_if_neither_lies_in_the_others_interval():
    old = cell()  # 1 in [0.9, 1.1]
    inside_both = cell(effect=1.05, low=0.95, high=1.15)
    only_in_old = cell(effect=1.09, low=1.08, high=1.1)
    only_in_new = cell(effect=1.5, low=0.9, high=2.1)
    outside = cell(effect=1.5, low=1.05, high=1.9)  # the intervals overlap, the effects are out
    for new, moved in (
        (inside_both, False),
        (only_in_old, False),
        (only_in_new, False),
        (outside, True),
    ):
        for pair in ((old, new), (new, old)):
            drift = drift_of(*pair)
            assert bool(drift.moved) is moved and bool(drift.shifted) is not moved
            assert not drift.verdicts


def test_an_effect_that_came_or_went_moved_unless_the_verdict_says_why():
    none = {"effect": None, "low": None, "high": None}
    for pair in ((cell(), cell(**none)), (cell(**none), cell())):
        assert len(drift_of(*pair).moved) == 1
    drift = drift_of(cell(), cell(verdict="blocked", **none))
    assert not drift.moved and len(drift.verdicts) == 1
    assert drift_of(cell(**none), cell(**none)).nothing


def test_an_effect_of_another_unit_moved():
    assert len(drift_of(cell(), cell(unit="nats")).moved) == 1


def test_an_effect_that_changed_its_sign_or_became_zero_moved():
    for effect in (0.0, -1.0):
        new = cell(effect=effect, low=effect - 0.1, high=effect + 0.1)
        assert len(drift_of(cell(), new).moved) == 1


def test_another_head_and_another_prediction():
    drift = drift_of(cell(), cell(subject="0:5"))
    assert [pair.after.subject for pair in drift.subjects] == ["0:5"]
    assert drift_of(cell(), cell(subject=None)).nothing  # blocked cells name none
    drift = drift_of(cell(), cell(prediction=None))
    assert len(drift.predictions) == 1 and not drift.verdicts


def test_new_and_gone_cells():
    drift = compare_sessions(
        session(cell("a"), cell("b")), session(cell("b"), cell("c"), cell("d"))
    )
    assert [record.model for record in drift.added] == ["c", "d"]
    assert [record.model for record in drift.gone] == ["a"] and drift.n_common == 1


def test_versions_device_platform_and_predictions_file():
    drift = drift_of(
        cell(),
        cell(),
        versions={"torch": "2.14.0", "triton": "4"},
        device="cpu",
        platform="Darwin",
        predictions_hash="0" * 60,
    )
    assert drift.circumstances == [
        Change("python", "3.11.7", None),
        Change("torch", "2.13.0", "2.14.0"),
        Change("triton", None, "4"),
        Change("device", "cuda", "cpu"),
        Change("platform", "Linux", "Darwin"),
        Change("predictions file", SHA, "0" * 60),
    ]
    assert not drift.nothing


def test_weights_of_models_that_have_cells():
    before = session(
        cell("a"), cell("b"), cell("c"), hashes={"a": "1", "b": "2", "c": "3", "idle": "4"}
    )
    after = session(
        cell("a"), cell("b"), cell("c"), hashes={"c": None, "b": "9", "a": "1", "idle": "5"}
    )
    drift = compare_sessions(before, after)
    assert drift.circumstances == [Change("weight_hash", "2", "9", "b")]
    assert drift.unhashed == ["c"]
    assert "Weights" not in summary(drift) and "weights of b" in summary(drift)


def test_facts_that_a_later_schema_adds_are_compared():
    class LaterSession(Session):
        dtype: str
        kernels: dict[str, str]

    class LaterModel(SessionModel):
        revision: str | None = None

    def later(dtype, kernel, revision):
        file = session(cell())
        fields = file.session.model_dump() | {"dtype": dtype, "kernels": {"attention": kernel}}
        fields["models"] = []
        model = LaterModel.model_validate(
            file.session.models[0].model_dump() | {"revision": revision}
        )
        made = LaterSession.model_validate(fields).model_copy(update={"models": [model]})
        return file.model_copy(update={"session": made})

    drift = compare_sessions(later("float32", "eager", "main"), later("bfloat16", "flash", "step8"))
    assert drift.circumstances == [
        Change("dtype", "float32", "bfloat16"),
        Change("kernels attention", "eager", "flash"),
        Change("revision", "main", "step8", "gpt2"),
    ]
    unknown = compare_sessions(later("float32", "eager", None), later("float32", "eager", "main"))
    assert unknown.nothing  # a session that does not say is no change


def test_runs_of_another_address():
    def files(digest):
        return session(
            cell(runs=["gpt2-zero-facts_1"]),
            cell(condition="logic", runs=["gpt2-zero-logic_1", f"gpt2-pairs-logic_{digest}"]),
            cell(condition="negation"),
            cell("b", runs=["b-zero-facts_1"]),
        )

    drift = compare_sessions(files("1"), files("2"))
    assert drift.remeasured == [Remeasured("gpt2", 1, 2)]
    assert "the runs measured (gpt2)" in summary(drift)
    swapped = cell(runs=["b_1", "a_1"])
    assert drift_of(cell(runs=["a_1", "b_1"]), swapped).nothing


def test_unfinished_sessions_are_named():
    drift = compare_sessions(session(cell(), complete=False), session(cell()))
    assert drift.partial == ["earlier"]
    assert "The earlier session did not finish" in as_markdown(drift)
    assert "The earlier session did not finish" in as_text(drift)


def test_sessions_of_two_protocols_are_refused():
    with pytest.raises(
        DriftError, match="earlier is of the corrected protocol, the later of the p"
    ):
        drift_of(cell(), cell(), protocol="published")


@pytest.mark.parametrize("which", ["earlier", "later"])
def test_a_cell_that_is_there_twice_is_refused(which):
    files = [session(cell(), cell(effect=2.0)), session(cell())]
    with pytest.raises(DriftError, match=f"the {which} holds H1.1 test_x twice for gpt2, facts"):
        compare_sessions(*(files if which == "earlier" else files[::-1]))


# --- sentences and tables ----------------------------------------------------------------------


def many(n, **changes):
    return [cell(f"m{index:03}", **changes) for index in range(n)]


def test_the_sentence_counts():
    before = session(*many(120))
    changed = many(120)
    changed[:3] = many(3, verdict="refuted")
    changed[5:7] = [
        record.model_copy(update={"effect": 9.0, "low": 8.0}) for record in changed[5:7]
    ]
    changed[5:7] = [record.model_copy(update={"high": 10.0}) for record in changed[5:7]]
    after = session(*changed, *[cell(f"new{index}") for index in range(5)])
    assert summary(compare_sessions(before, after)) == (
        "3 of 120 test cases changed their verdict, 2 effects moved, 5 test cases are new."
    )


def test_the_sentence_says_one_of_one_and_none():
    drift = drift_of(cell(), cell(verdict="refuted", effect=1.05), device="cpu")
    assert summary(drift) == (
        "1 of 1 test case changed its verdict, no effect moved, "
        "1 effect shifted within its interval. "
        "What differs beside: device."
    )
    drift = drift_of(cell(), cell(prediction="refuted", subject="0:5"))
    assert summary(drift) == (
        "None of 1 test case changed its verdict, no effect moved, "
        "1 test case is about another head, "
        "1 test case is predicted otherwise."
    )
    drift = drift_of(cell("a"), cell("b"))
    assert (
        summary(drift)
        == "No test case is in both sessions, 1 test case is new, 1 test case is gone."
    )


def hostile_drift():
    """A drift with harmful text wherever text can stand."""
    text = f"a|b `c` *d* {HOSTILE} &lt; [x](http://y) \\| _e_ www.z.org $1$ ~~f~~ :smile:\n# g"
    fields = {"claim": text, "name": f"test_{text}", "subject": text, "unit": text, "reason": text}
    old = cell(text, condition=text, **fields | {"subject": "0:1"}, runs=["x_1"])
    new = cell(
        text, condition=text, verdict="refuted", prediction=None, effect=5.0, low=4.0, high=6.0,
        **fields, runs=["x_2"],
    )  # fmt: skip
    drift = compare_sessions(
        session(old, cell("gone", **fields), hashes={text: text}, complete=False, command=text),
        session(
            new,
            cell("came", **fields),
            hashes={text: text + "!"},
            versions={text: text},
            device=text,
            command=text,
        ),
    )
    return text, drift


def parsed_tables(page):
    """The tables of a Markdown page, as a reader of GitHub's tables sees them, by title."""
    tokens = MarkdownIt("commonmark").enable(["table"]).parse(page)
    found, title, row = {}, None, []
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            title = tokens[index + 1].children[0].content
            found[title] = []
        elif token.type == "tr_open":
            row = []
            found[title].append(row)
        elif token.type == "inline" and tokens[index - 1].type in ("th_open", "td_open"):
            assert {child.type for child in token.children} <= {"text", "text_special"}
            row.append("".join(child.content for child in token.children))
    return tokens, found


def test_markdown_shows_every_text_as_it_is():
    text, drift = hostile_drift()
    page = as_markdown(drift)
    tokens, found = parsed_tables(page)
    shown = " ".join(text.split())
    expected = {
        table.title: [
            list(table.header),
            *([" ".join(each.split()) for each in row] for row in table.rows),
        ]
        for table in tables(drift)
    }
    assert found == expected and len(found) == 8
    assert found["Verdicts"][1][0] == shown
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special"}, kinds
    assert not {token.type for token in tokens} & {"html_block", "fence", "code_block"}
    for harm in ("<", "`", "http:/", "www.", "$"):
        assert harm not in page


def test_escaping_leaves_ordinary_names_alone():
    for name in ("test_top_suppressor", "tiny-gpt2", "0.5", "effect was: +1.2", "2.13.0+cpu"):
        assert escaped(name) == name
    assert escaped("a\n|\tb") == "a &#124; b"
    assert escaped("x\N{RIGHT-TO-LEFT OVERRIDE}\x1b[0m") == "xU+202EU+001B&#91;0m"


def test_markdown_is_bounded():
    n = MOST_ROWS + 7
    before, after = session(*many(n)), session(*many(n, verdict="refuted", reason="r" * 300))
    page = as_markdown(compare_sessions(before, after))
    assert len(parsed_tables(page)[1]["Verdicts"]) == 1 + MOST_ROWS
    assert "… and 7 more" in page and len(page) < 80 * 1024
    assert as_text(compare_sessions(before, after)).count("refuted") == n


def test_a_reason_of_any_length_leaves_the_page_bounded():
    before = session(*many(MOST_ROWS))
    after = session(*many(MOST_ROWS, verdict="error", reason="| " * 50_000))
    assert len(as_markdown(compare_sessions(before, after))) < 80 * 1024


def test_the_terminal_shows_columns_and_obeys_no_control_character():
    _, drift = hostile_drift()
    shown = as_text(drift)
    assert shown.startswith("1 of 1 test case changed its verdict, 1 effect moved, ")
    names = ("a", "long-name")
    refuted = [cell(name, verdict="refuted", reason="x\x1b[31m\ry") for name in names]
    drift = compare_sessions(session(*map(cell, names)), session(*refuted))
    lines = as_text(drift).splitlines()
    start = lines.index("Verdicts")
    columns = [line.index("facts") for line in lines[start + 2 : start + 4]]
    assert columns[0] == columns[1] == lines[start + 1].index("condition")
    assert "xU+001B[31m y" in lines[start + 2]
    assert not any(ord(character) < 32 and character != "\n" for character in as_text(drift))


def test_cells_that_come_and_go_are_one_row_a_test_and_model():
    after = session(*(cell(condition=name) for name in ("facts", "logic")), cell("pythia-1b"))
    (table,) = tables(compare_sessions(session(hashes={}), after))
    assert table.title == "New test cases"
    assert table.rows == [
        ("H1.1", "x", "gpt2", "facts: supported, logic: supported"),
        ("H1.1", "x", "pythia-1b", "facts: supported"),
    ]


def test_hashes_are_shortened_as_in_addresses():
    drift = drift_of(cell(), cell(), predictions_hash="f" * 60)
    (table,) = tables(drift)
    assert table.rows == [("predictions file", "", SHA[:12], "f" * 12)]


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Two folders of reports, of which the later refutes what the earlier supports."""
    made = tmp_path / "before", tmp_path / "after"
    for folder, verdict in zip(made, ("supported", "refuted"), strict=True):
        write_records(session(cell(verdict=verdict)), folder)
    return made


def run(*arguments):
    try:
        return main(["drift", *map(str, arguments)])
    except SystemExit as stopped:
        return stopped.code


def test_folders_json_and_parquet_are_read(folders, capsys):
    before, after = folders
    said = set()
    for name in ("", "records.json", "records.parquet"):
        assert run(before / name, after / name) == 0
        said.add(capsys.readouterr().out)
    (text,) = said
    assert text.startswith("1 of 1 test case changed its verdict, no effect moved.\n\nVerdicts\n")
    assert "H1.1" in text and "it is so" in text


def test_fail_on(folders, capsys):
    before, after = folders
    assert run(before, after, "--fail-on", "verdict") == 1
    assert run(before, after, "--fail-on", "any") == 1
    assert run(before, before, "--fail-on", "any") == 0
    write_records(session(cell(prediction="refuted")), after)
    assert run(before, after, "--fail-on", "verdict") == 0
    assert run(before, after, "--fail-on", "any") == 1
    assert "Predictions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, ()),
        ({"verdict": "refuted"}, ("verdict", "figure", "any")),
        ({"effect": 1.05}, ("figure", "any")),  # within the other's interval
        ({"effect": 3.0, "low": 2.9, "high": 3.1}, ("figure", "any")),
        ({"effect": 1.0001}, ()),  # within the tolerance
        ({"prediction": "refuted"}, ("any",)),
        ({"claim": "H1.2"}, ("verdict", "figure", "any")),  # no cell is in both
    ],
)
def test_compare_fails_on_what_it_is_asked_to(folders, capsys, changes, fails):
    before, after = folders
    write_records(session(cell(**changes)), after)
    for on in ("verdict", "figure", "any", "never"):
        try:
            status = main(["compare", str(before), str(after), "--fail-on", on])
        except SystemExit as stopped:
            status = stopped.code
        assert status == (1 if on in fails else 0), on
    assert main(["compare", str(before), str(after)]) == 0


def test_output_is_written_and_never_over_a_file(folders, tmp_path, capsys):
    before, after = folders
    page = tmp_path / "drift.md"
    assert run(before, after, "--markdown", "--output", page, "--fail-on", "verdict") == 1
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("1 of 1 test case changed its verdict") and "| --- |" in text
    assert run(before, before, "--output", page) == 2
    assert "give --force to write over it" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == text
    assert run(before, before, "--output", page, "--force") == 0
    assert page.read_text(encoding="utf-8").startswith("Nothing changed: 1 test case with")
    assert run(before, after, "--output", page / "x") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_what_cannot_be_compared_is_said_where_it_would_be_looked_for(folders, tmp_path, capsys):
    before, after = folders
    write_records(session(cell(), protocol="published"), after)
    assert run(before, after) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: the sessions cannot be compared: ")
    assert run(before, after, "--markdown", "--fail-on", "verdict") == 2
    said = capsys.readouterr()
    assert said.out.startswith("Not compared: the sessions cannot be compared: the earlier is of ")
    assert "error: " in said.err
    assert run(tmp_path / "nowhere", after, "--markdown") == 2
    assert "Not compared: " in capsys.readouterr().out


def test_comparing_needs_pydantic_and_nothing_else(folders):
    """The nightly workflow installs no more on the machine that compares."""
    before, after = folders
    code = (
        "import importlib.abc, sys\n"
        "class Nothing(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ABSENT: raise ModuleNotFoundError(name)\n"
        "ABSENT = {'torch', 'transformers', 'transformer_lens', 'numpy', 'scipy', 'pandas',\n"
        "    'pyarrow', 'jinja2', 'markupsafe', 'matplotlib', 'filelock', 'tqdm', 'networkx',\n"
        "    'pytest', 'huggingface_hub', 'tokenizers', 'safetensors', 'jaxtyping', 'sklearn',\n"
        "    'psutil', 'accelerate', 'yaml', 'requests', 'packaging'}\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "from tinyablation.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "drift", str(before), str(after), "--markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 of 1 test case changed its verdict")


# --- selections and merged sessions --------------------------------------------------------------


def test_what_a_selection_left_out_is_not_gone():
    before = session(cell("gpt2"), cell("gpt2-xl"))
    after = session(cell("gpt2"), cell("new"))
    drift = compare_sessions(within(before, after), after)
    assert drift.n_common == 1 and not drift.gone
    assert [record.model for record in drift.added] == ["new"]


def test_what_merged_sessions_disagree_on_is_left_out_and_said():
    merged = merge([session(cell(), cell("b")), session(cell(effect=2.0), device="cpu")])
    for before, after in ((merged, session(cell(), cell("b"))), (session(cell()), merged)):
        drift = compare_sessions(before, after)
        assert drift.disputed == [("test_x", "H1.1", "gpt2", "facts")]
        assert not drift.verdicts and not drift.gone
        assert "1 test case on which the sources of a merged session disagree" in as_text(drift)


def test_pages_are_compared_as_their_records_are(tmp_path, capsys):
    before = write_report(session(cell()), tmp_path / "before.html")
    after = write_report(session(cell(verdict="refuted")), tmp_path / "after.html")
    assert main(["drift", str(before), str(after)]) == 0
    assert capsys.readouterr().out.startswith("1 of 1 test case changed its verdict")
