"""What is named because nobody sees it. Run: pytest tests/test_characters.py"""

import sys
import unicodedata

import pytest

from tinyablation.characters import is_hidden, name_of, named, printable

EVERY = [chr(point) for point in range(sys.maxunicode + 1)]
SHAPELESS = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Default_Ignorable_Code_Point of Unicode that is no format character, and the empty Braille cell.
FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u2065\u2800\u3164\ufe00\uffa0\U000e0100"


def test_whatever_unicode_calls_a_control_is_named():
    assert [c for c in EVERY if unicodedata.category(c) in SHAPELESS and not is_hidden(c)] == []
    assert all(map(is_hidden, FILLERS))


def test_what_is_seen_is_left_alone():
    """Letters, marks, digits, signs and spaces of every script, but for the fillers."""
    shown = [c for c in EVERY if unicodedata.category(c)[0] in "LMNPS" or c == " "]
    wrong = [c for c in shown if is_hidden(c)]
    assert {name_of(c) for c in wrong if unicodedata.category(c)[0] in "LNPS"} == {
        *("U+115F", "U+1160", "U+2800", "U+3164", "U+FFA0")
    }
    # Marks that select another shape of the letter before them, and one that joins letters.
    assert all(
        "SELECTOR" in (said := unicodedata.name(c)) or "JOINER" in said or "INHERENT" in said
        for c in wrong
        if unicodedata.category(c)[0] == "M"
    )
    text = "Zürich, 東京 ❤\ufe0f: −0.3 [a_b] \N{NO-BREAK SPACE}!"
    assert named(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gnp\u202egpj.exe", "gnpU+202Egpj.exe"),
        ("\x1b[2J", "U+001B[2J"),
        ("a\u200bb\ufeff", "aU+200BbU+FEFF"),
        ("\ud800", "U+D800"),
        ("\U000e0041", "U+E0041"),
    ],
)
def test_names_stand_in_their_place(text, shown):
    assert named(text) == shown


def test_line_ends_are_kept_where_they_are_wanted():
    assert named("a\nb\tc\r", kept="\n") == "a\nbU+0009cU+000D"
    assert printable("one\ntwo é\x1b[2J\u202e") == "one\ntwo éU+001B[2JU+202E"
