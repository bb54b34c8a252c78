"""Run: pytest tests/sessions/test_baselines.py"""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tinyablation.errors import TinyAblationError
from tinyablation.sessions.baselines import (
    LOCK,
    BaselineError,
    Case,
    add_to_baseline,
    as_text,
    checked,
    read_baseline,
    rounded,
)
from tinyablation.sessions.drift import RELATIVE

COMMITTED = Path(__file__).parents[2] / "claims" / "suppressors" / "__snapshots__"
FACTS = Case("H1.2", "test_leads", "facts")
LOGIC = Case("H1.10", "test_leads", "logic")
FIGURES = {
    "verdict": "supported",
    "subject": "0:2",
    "n_examples": 40,
    "n_clusters": 20,
    "effect": 1.0,
    "low": 0.75,
    "high": 1.25,
    "floor": 0.1,
    "p_corrected": 1e-05,
    "figures": {"ranks": [1, 2], "by_method": {"zero": 0.5, "mean": None}},
}
TEXT = """{
  "V.1 test_leads facts": {
    "verdict": "blocked"
  },
  "H1.2 test_leads facts": {
    "verdict": "supported", "subject": "0:2", "n_examples": 40, "n_clusters": 20,
    "effect": 1.0, "low": 0.75, "high": 1.25,
    "floor": 0.1, "p_corrected": 1e-05,
    "figures": {
      "by_method": {"mean": null, "zero": 0.5},
      "ranks": [1, 2]
    }
  },
  "H1.10 test_leads logic": {
    "effect": null,
    "figures": {}
  },
  "H2.1 test_leads facts": {}
}
"""


def test_a_file_is_in_the_order_of_claims_and_each_figure_has_its_line(tmp_path):
    entries = {
        LOGIC: {"effect": None, "figures": {}},
        FACTS: FIGURES,
        Case("V.1", "test_leads", "facts"): {"verdict": "blocked"},
        Case("H2.1", "test_leads", "facts"): {},
    }
    path = tmp_path / "new" / "tiny.json"
    add_to_baseline(path, entries, replace=False)
    assert path.read_text() == as_text(entries) == TEXT
    assert read_baseline(path) == entries
    assert as_text({}) == "{}\n" and read_baseline(tmp_path / "none.json") == {}


def test_a_figure_that_moves_changes_its_line_alone(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(TEXT)
    moved = FIGURES | {"effect": 2.0, "low": 0.75 * (1 + RELATIVE / 2), "floor": 0.1001}
    add_to_baseline(path, {FACTS: moved}, replace=True)
    lines = zip(TEXT.splitlines(), path.read_text().splitlines(), strict=True)
    assert [new for old, new in lines if old != new] == [
        '    "effect": 2.0, "low": 0.75, "high": 1.25,'
    ]


def test_new_ones_are_added_and_none_is_touched_unless_it_is_to_be(tmp_path):
    path = tmp_path / "tiny.json"
    by_hand = json.dumps({str(FACTS): {"effect": 1}})
    path.write_text(by_hand)
    add_to_baseline(path, {FACTS: {"effect": 5.0}}, replace=False)
    add_to_baseline(path, {FACTS: {"effect": 1.0}}, replace=True)
    assert path.read_text() == by_hand, "nothing changed, and it was laid out anew"
    add_to_baseline(path, {FACTS: {"effect": 5.0}, LOGIC: {"effect": 2.0}}, replace=False)
    assert read_baseline(path) == {FACTS: {"effect": 1}, LOGIC: {"effect": 2.0}}
    # To Python 1 is True; to a reader it is not.
    add_to_baseline(path, {FACTS: {"figures": {"a": True}}}, replace=True)
    add_to_baseline(path, {FACTS: {"figures": {"a": 1}}}, replace=True)
    assert read_baseline(path)[FACTS] == {"figures": {"a": 1}}


def test_figures_have_six_digits_and_no_nan():
    assert rounded({"a": [1.23456789, 2], "b": (0.1,)}) == {"a": [1.23457, 2], "b": [0.1]}
    with pytest.raises(BaselineError, match="finite"):
        rounded({"a": float("nan")})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not JSON"),
        ('{"H1.2 test_leads facts": {"effect": 1.0}', "is not JSON"),
        ("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n", "is not JSON"),
        ("[]", "holds no object of test cases, but a list"),
        ("null", "holds no object of test cases, but a NoneType"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"H1.2 test_leads": {}}', "names no test case"),
        ('{"": {}}', "names no test case"),
        ('{"H1.2 test_leads facts": 1.0}', "holds no figures, but a float"),
        ('{"a b c": {}, "a b c": {}}', "'a b c' stands there twice"),
        ('{"a b c": {"low": 1.0, "low": 2.0}}', "'low' stands there twice"),
        ('{"a b c": {"efect": 1.0}}', "the figure 'efect' is unknown; did you mean 'effect'?"),
        ('{"a b c": {"verdict": "suported"}}', "verdict: Input should be 'supported'"),
        ('{"a b c": {"effect": "1.0"}}', "effect: Input should be a valid number, not '1.0'"),
        ('{"a b c": {"n_examples": -1}}', "n_examples"),
        ('{"a b c": {"effect": NaN}}', "NaN is no finite number"),
        ('{"a b c": {"effect": -Infinity}}', "-Infinity is no finite number"),
        ('{"a b c": {"effect": 1e999}}', "'a b c': effect is inf"),
        ('{"a b c": {"figures": {"x": [1e999]}}}', "figures.x[0] is inf"),
        ('{"a b c": {"effect": ' + "9" * 400 + "}}", "a whole number of 400 digits"),
        ('{"a b c": {"effect": ' + "9" * 5000 + "}}", "a whole number of 5000 digits"),
        ('{"a b c": {"subject": "\\ud800"}}', "a lone surrogate"),
        (b"\xff\xfe{}", "is not UTF-8"),
    ],
)
def test_a_broken_file_is_named_on_one_line_and_never_written_over(tmp_path, text, fault):
    path = tmp_path / "tiny.json"
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    with pytest.raises(BaselineError) as caught:
        add_to_baseline(path, {FACTS: FIGURES}, replace=True)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and fault in said and "git checkout" in said
    assert "\n" not in said and len(said) < 700
    assert path.read_bytes() == content
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, LOCK}


def test_what_a_file_may_not_hold_is_not_written(tmp_path):
    for figures in ({"efect": 1.0}, {"effect": "1"}, [1.0]):
        with pytest.raises(BaselineError):
            checked(figures)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(BaselineError, match="cannot be read"):
        read_baseline(tmp_path)


# --- several writers -----------------------------------------------------------------------------

FORKED = multiprocessing.get_context("fork")
N_EACH = 25


def _add_many(path: Path, writer: int) -> None:
    for number in range(N_EACH):
        case = Case(f"H{writer}.{number}", "test_leads", "facts")
        add_to_baseline(path, {case: {"effect": float(number)}}, replace=False)


def _finished(*processes: multiprocessing.process.BaseProcess) -> list[int | None]:
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_writers_of_one_file_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "tiny.json"
    writers = [FORKED.Process(target=_add_many, args=(path, number)) for number in range(4)]
    assert _finished(*writers) == [0] * 4
    assert len(read_baseline(path)) == 4 * N_EACH
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, LOCK}


def test_a_writer_that_is_killed_leaves_the_old_file_and_no_lock(tmp_path, monkeypatch):
    path = tmp_path / "tiny.json"
    path.write_text(TEXT)

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr("tinyablation.files.manifests.os.replace", killed)
        victim = FORKED.Process(
            target=add_to_baseline, args=(path, {FACTS: {"effect": 9.0}}), kwargs={"replace": True}
        )
        assert _finished(victim) == [-signal.SIGKILL]
    assert path.read_text() == TEXT
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    add_to_baseline(path, {Case("H1.3", "test_leads", "facts"): {"effect": 9.0}}, replace=False)
    assert len(read_baseline(path)) == 5 and not list(tmp_path.glob(".*.tmp"))


def test_a_folder_that_takes_no_files_is_said(tmp_path, monkeypatch):
    path = tmp_path / "tiny.json"
    path.write_text(TEXT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyablation.files.manifests.os.fsync", full)
    with pytest.raises(TinyAblationError, match="No space left on device"):
        add_to_baseline(path, {FACTS: {"effect": 9.0}}, replace=True)
    assert path.read_text() == TEXT and not list(tmp_path.glob(".*.tmp"))


# --- the committed ones --------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.json")), ids=lambda path: path.stem)
def test_committed_files_are_as_they_would_be_written(path):
    found = read_baseline(path)
    assert found and path.read_text() == as_text(found)
    assert {case: rounded(figures) for case, figures in found.items()} == found
