"""Text of the report page: tokens visible, hostile characters harmless, figures in words."""

import json
import re
from typing import Any, Literal

from markupsafe import Markup, escape

from tinyablation.characters import is_hidden, name_of, named
from tinyablation.files.hashes import text_sha256
from tinyablation.records.records import PublishedFigure

_KEPT = "\n\t"  # what HTML takes for a space
_IN_RECORDS = [
    (re.compile(r"\blead over (?=L?\d+[:H]\d)"), "difference from runner-up "),
    (re.compile(r"(?<![\w:.,+])(\d{1,3}):(\d{1,3})(?!\w|:\d)"), r"L\1H\2"),
    (re.compile(r"\bnoise floor\b"), "numerical noise"),
    (re.compile(r"\bfloor(s?)\b"), r"minimum effect\1"),
    (re.compile(r"\bceiling(s?)\b"), r"upper threshold\1"),
    (re.compile(r"\baccomplices of\b"), "pairwise interactions with"),
    (re.compile(r"\bsham patch\b"), "control patch"),
    (re.compile(r"\bsham\b"), "negative control"),
    (re.compile(r"^cells$"), "by kind of prompt"),
    (re.compile(r"\bwhere cell (?=\S)"), "for prompts of the kind "),
    (re.compile(r"^Sham:"), "Negative control:"),
    (re.compile(r"^Planted:"), "Positive control:"),
]
_MOST_NESTED = 3  # tables within tables of a claim's details; deeper ones are printed as JSON


def visible(text: str) -> Markup:
    """Text of a token or prompt with its outer spaces, line ends and control characters shown."""
    body = text.strip(" ")
    lead = len(text) - len(text.lstrip(" ")) if body else len(text)
    trail = len(text) - len(text.rstrip(" ")) if body else 0
    marks = {"\n": "↵", "\r": "␍", "\t": "⇥", "\N{NO-BREAK SPACE}": "⍽"}
    space = Markup('<i class="sp">␣</i>')
    if body.isprintable() and named(body) == body:  # nearly always, and much faster
        return Markup("").join([space * lead, escape(body), space * trail])
    shown = [space * lead]
    shown += [
        Markup('<i class="sp">{}</i>').format(marks[character])
        if character in marks
        else escape(character)
        if character.isprintable() and not is_hidden(character)
        else _named(character)
        for character in body
    ]
    return Markup("").join([*shown, space * trail])


def harmless(text: str) -> Markup:
    """Escaped text whose hidden characters are named, not obeyed; line ends and tabs are kept."""
    if named(text, kept=_KEPT) == text:  # nearly always, and much faster
        return escape(text)
    return Markup("").join(
        _named(character) if is_hidden(character) and character not in _KEPT else escape(character)
        for character in text
    )


def _named(character: str) -> Markup:
    # No quotes: finalize puts this into attributes too.
    return Markup("<i class=sp>{}</i>").format(name_of(character))


def finalize(value: Any) -> Any:
    """What jinja prints for a value: text with nothing in it that a browser would obey."""
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def settled(html: str) -> str:
    """Finished markup without hidden characters, also where no template printed the text."""
    return named(html, kept=_KEPT)


def readable(text: str) -> str:
    """Text of a record in the words of the page: heads as L0H7, and no word of the code alone.

    For reasons, details and titles, which claims and judges word; never for prompts, commands and
    what identifies something.
    """
    for pattern, better in _IN_RECORDS:
        text = pattern.sub(better, text)
    return text


def slug(*parts: str) -> str:
    """A stable id of letters that need no escaping; what had to change is told apart by a hash."""
    text = ".".join(parts)
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return kept if kept == text else f"{kept}-{text_sha256(text)[:8]}"


def detail(value: Any, depth: int = 0) -> Any:
    """A detail as the template prints it: text, ("pairs", [...]) or ("rows", columns, [...])."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, dict) and value and depth < _MOST_NESTED:
        return ("pairs", [(key, detail(item, depth + 1)) for key, item in value.items()])
    if _is_estimate(value):
        estimate, low, high = (detail(float(item)) for item in value)
        return f"{estimate} [{low}, {high}]"
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(str(detail(item)) for item in value) or "none"
    if isinstance(value, list) and depth < _MOST_NESTED and all(isinstance(i, dict) for i in value):
        columns = list(dict.fromkeys(key for item in value for key in item))
        rows = [[detail(item.get(key, ""), depth + 1) for key in columns] for item in value]
        return ("rows", columns, rows)
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _is_estimate(value: Any) -> bool:
    """Whether a detail is a figure with its interval: [estimate, low, high], as claims give it."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(item, float) for item in value)
        and value[1] < value[0] < value[2]
    )


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals, or two significant digits where those would show nothing."""
    if value != 0 and (abs(value) < 0.0005 or abs(value) >= 1e6):
        text = f"{value:+.1e}" if signed else f"{value:.1e}"
    else:
        text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """A p value as journals print it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def given(figure: PublishedFigure, name: Literal["value", "low", "high"] = "value") -> str:
    """A published number with the digits it was given with; an effect with its sign."""
    sign = "+" if figure.quantity == "effect" else ""
    return f"{getattr(figure, name):{sign}g}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """Minutes and seconds; nothing where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def time(text: str) -> str:
    """A UTC time of a session as the page prints it."""
    return text[:19].replace("T", " ") + " UTC"


def json_text(document: Any, *, indent: int = 2) -> str:
    """A document as JSON that is safe within a page: a < stands in texts only, as an escape."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c") + "\n"
