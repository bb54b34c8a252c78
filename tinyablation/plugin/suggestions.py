"""Misspelt names on the command line: reported before anything else, with a suggestion.

    --claim H1.11      no claim has this id
    --model tiny-gtp2  close to the id of a model, and neither a folder nor owner/name
    -k facst           close to the name of a model, a condition or a claim, and found nowhere

Checked before collection, against the text of claims/ and the registry. Names that are composed
during collection are not visible there, so a word that is not close to any name passes, and
collection decides (selection.py).
"""

import os
import re
from collections.abc import Collection, Generator, Iterable, Sequence
from pathlib import Path

import pytest

from tinyablation.errors import TinyAblationError
from tinyablation.plugin.claim_files import Written, written
from tinyablation.plugin.command_line import command
from tinyablation.plugin.conditions import conditions
from tinyablation.plugin.options import (
    asked_words,
    asks_for_claims_alone,
    claims_folder,
    is_claims_run,
    is_guest,
    wanted_ids,
)
from tinyablation.plugin.selection import matches_claim, no_such_claim, refuse
from tinyablation.plugin.session_models import listed, session_models
from tinyablation.spelling import SLIP, nearest

LIKE = 0.6  # difflib's default, for a -k that matches nothing anyway
_LEAST = 4  # shortest word for which suggestions are made, in letters
_CLAIM_ID = re.compile(r"[A-Z]+[0-9]*\.[0-9]+[a-z]?", re.IGNORECASE)


def slip_of(word: str, known: Iterable[str], cutoff: float = SLIP) -> str | None:
    """The known word that a word probably misspells; None if none is close."""
    return nearest(word, known, cutoff) if len(word) >= _LEAST else None


@pytest.hookimpl(tryfirst=True)  # before workers start, and before models are looked for
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not is_claims_run(config):
        return
    option = command(config)
    if not (option.claim or option.model or option.keyword):
        return
    try:
        ids = listed(config).ids
    except TinyAblationError:
        return  # reported by whatever needs it
    # The claims of a guest may be anywhere; what they are called is seen at collection.
    found = Written("", None, ()) if is_guest(config) else written(claims_folder(config))
    complaint = (
        _claim(option.claim, found.claims)
        or _model(option.model, ids, config.invocation_params.dir)
        or _keyword(config, found, ids)
    )
    if complaint:
        raise pytest.UsageError(complaint)


def _claim(wanted: Iterable[str], known: Collection[str] | None) -> str | None:
    for name in wanted_ids(list(wanted)) if known is not None else ():
        assert known is not None
        if not any(matches_claim(name, identifier) for identifier in known):
            return no_such_claim(name, known)
    return None


def _model(wanted: Iterable[str], known: Collection[str], folder: Path) -> str | None:
    """The complaint about a --model; a name without a slash is rarely a (very old) hub model."""
    for name in wanted:
        if "/" in name or name in known or os.path.exists(folder / os.path.expanduser(name)):
            continue
        close = slip_of(name, known)
        if close is not None:
            return (
                f"--model {name}: no model has this id, and there is no such folder. Did you mean "
                f"{close}? (A repository of the hub is named OWNER/NAME)"
            )
    return None


def _keyword(config: pytest.Config, found: Written, ids: Collection[str]) -> str | None:
    """The complaint about a word of -k that occurs nowhere but is close to one that does."""
    expression: str = command(config).keyword
    words = asked_words(expression)
    if not words or not asks_for_claims_alone(config):
        return None
    rest = " ".join(
        part for part in map(str, config.invocation_params.args) if expression not in part
    )
    names = (*ids, *conditions(config))
    everywhere = f"{found.text} {' '.join(names)} {rest}".lower()
    unknown = [word for word in words if word.lower() not in everywhere]
    # "facst or logic" selects something, so the user sees the mistake.
    if not unknown or (" or " in expression and len(unknown) < len(words)):
        return None
    for word in unknown:
        close = slip_of(word, known_words(found.tests, names))
        if close is not None:
            return f"-k {expression}: nothing is called {word}. Did you mean {close}?"
    return None


def nothing_matches(
    expression: str, unknown: Sequence[str], tests: Iterable[str], names: Collection[str]
) -> str:
    """The message for a -k that selects no cell.

    unknown: its words that are part of no name; names: of models and conditions.
    """
    known = known_words(tests, names)
    said = f"-k {expression}: matches no test case"
    for word in unknown:
        if _CLAIM_ID.fullmatch(word):
            return f"{said}. A claim is chosen by its id: --claim {word.upper()}"
        close = slip_of(word, known, LIKE)
        if close is not None:
            return f"{said}. Did you mean {close}?"
    what = f", and nothing is called {', '.join(unknown)}" if unknown else ""
    return (
        f"{said}{what}. It selects by parts of names: of models, conditions "
        f"({', '.join(names)}) and tests"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around everything that deselects
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    expression: str = command(config).keyword
    if not expression or not items or not asks_for_claims_alone(config):
        return (yield)
    names = {name.lower() for item in items for name in item.keywords}
    tests = {item.name.split("[")[0] for item in items}
    result = yield
    option = command(config)
    if not items:
        words = asked_words(expression)
        unknown = [word for word in words if not any(word.lower() in name for name in names)]
        # If the names exist but another option excludes them, pytest itself reports it.
        if unknown or not (option.claim or option.model or option.markexpr or option.deselect):
            known = (*session_models(config).collected, *conditions(config))
            refuse(config, items, nothing_matches(expression, unknown, tests, known))
    return result


def known_words(tests: Iterable[str], names: Collection[str]) -> list[str]:
    """Candidates for a word of -k: models, conditions, tests and the words of their names."""
    named = list(tests)
    parts = {part for test in named for part in test.split("_") if len(part) >= _LEAST}
    return [*names, *named, *sorted(parts)]
