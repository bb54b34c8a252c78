"""The figures of two nested documents that differ by more than rounding between machines."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from tinyablation.sessions.drift import ABSOLUTE, RELATIVE

_ABSENT = "absent"


class Difference(NamedTuple):
    """A figure that moved, in words: its key, what it was, what it is, and by how much."""

    figure: str
    was: str
    now: str
    by: str  # "" for what is no number

    def __str__(self) -> str:
        return f"{self.figure}: was {self.was}, now {self.now}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, scalar) of nested data; an empty container is itself a leaf."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from _leaves(entry, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, entry in enumerate(value):
            yield from _leaves(entry, f"{path}[{index}]")
    else:
        yield path, value


def _numbers(*values: Any) -> bool:
    return all(type(value) in (int, float) for value in values)


def same(old: Any, new: Any) -> bool:
    """Whether two scalars agree: floats within tolerance, everything else exactly."""
    if _numbers(old, new) and float in (type(old), type(new)):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(old) is type(new) and bool(old == new)


def differences(old: Any, new: Any) -> list[Difference]:
    """The figures that moved, by key."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    found = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            found.append(Difference(key, _shown(before[key]), _ABSENT, ""))
        elif key not in before:
            found.append(Difference(key, _ABSENT, _shown(after[key]), ""))
        elif not same(before[key], after[key]):
            was, now = before[key], after[key]
            found.append(Difference(key, _shown(was), _shown(now), _by(was, now)))
    return found


def replaced(old: Any, new: Any) -> Any:
    """`new`, with the digits of `old` wherever a figure did not move."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            key: replaced(old[key], entry) if key in old else entry for key, entry in new.items()
        }
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [replaced(before, after) for before, after in zip(old, new, strict=True)]
    return new if differences(old, new) else old


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _by(was: Any, now: Any) -> str:
    """`+0.2 (+20.0 %)`."""
    if not _numbers(was, now):
        return ""
    share = f" ({(now - was) / abs(was):+.1%})".replace("%", " %") if was else ""
    return f"{now - was:+.6g}{share}"
