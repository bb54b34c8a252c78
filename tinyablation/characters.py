"""Characters that a reader does not see and a program obeys: named wherever text is shown.

A token, a prompt or a message may hold control characters, marks that turn the direction of what
follows (U+202E), or signs of no width. Pages, Markdown, CSV, LaTeX, drawings and terminal lines
show them by their names, through `named`, and escape what is left for their own language.
"""

import re

# By code points: control characters; those of format, direction and no width (category Cf), halves
# of characters (Cs), separators of lines and paragraphs (Zl, Zp); and fillers that Unicode counts
# as letters or marks and no font shows. U+FE0E and U+FE0F are left: they choose a sign's drawing.
_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    r"\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff"
    r"\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_ANY = re.compile(f"[{_HIDDEN}]")


def is_hidden(character: str) -> bool:
    """Whether a character has no shape of its own, and so must be named to be seen."""
    return _ANY.match(character) is not None


def name_of(character: str) -> str:
    """How a character is named: U+202E."""
    return f"U+{ord(character):04X}"


def named(text: str, *, kept: str = "") -> str:
    """`text` with its hidden characters named, except for those in `kept`."""
    return _ANY.sub(lambda found: found[0] if found[0] in kept else name_of(found[0]), text)


def printable(text: str) -> str:
    """`text` for a terminal: its hidden characters are named, line ends are kept."""
    return named(text, kept="\n")
