"""Text for Markdown and terminals: shown as it is, on one line, nothing in it obeyed."""

import re

from tinyablation.characters import named

# Everything that Markdown or HTML gives a meaning to, wherever it stands; an underscore only where
# it is not within a word, a colon only where it could make a link or an emoji. As numeric
# references they structure nothing, in cells of tables too, where it depends on the reader what a
# backslash before a | does.
_MEANING = re.compile(
    r"[\\`*\[\]{}<>&|~#!$@]|:(?=\S)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\.",
    re.IGNORECASE,
)


def escaped(text: str) -> str:
    """`text` as Markdown that shows exactly that text, on one line."""
    return _MEANING.sub(lambda match: f"&#{ord(match[0])};", one_line(text))


def one_line(text: str) -> str:
    """`text` with white space folded; hidden characters are named, not obeyed."""
    return named(" ".join(text.split()))
