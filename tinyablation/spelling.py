"""What was probably meant by a word that is not known: for messages."""

import difflib
from collections.abc import Iterable

SLIP = 0.8  # of difflib's ratio: two letters of ten; "facst" is as far from "facts"
LIKE = 0.4  # of a few names, the one that is meant may be far off


def nearest(word: object, known: Iterable[str], cutoff: float = LIKE) -> str | None:
    """The known word that is most like this one, in either case; None where none is close."""
    if not isinstance(word, str):
        return None
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=cutoff)
    return names[close[0]] if close else None


def did_you_mean(word: object, known: Iterable[str], cutoff: float = LIKE) -> str:
    """ "did you mean 'facts'?", or "known: " and all that are."""
    names = list(known)
    close = nearest(word, names, cutoff)
    return f"known: {', '.join(names)}" if close is None else f"did you mean {close!r}?"
