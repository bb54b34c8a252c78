"""The figures of two nested documents that differ by more than rounding between machines."""

import json
import math
from collections.abc import Iterator
from typing import Any

from tinyablation.sessions.drift import ABSOLUTE, RELATIVE


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


def same(old: Any, new: Any) -> bool:
    """Whether two scalars agree: floats within tolerance, everything else exactly."""
    numbers = all(type(value) in (int, float) for value in (old, new))
    if numbers and float in (type(old), type(new)):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(old) is type(new) and bool(old == new)


def differences(old: Any, new: Any) -> list[str]:
    """One line per figure that changed: its key, old value, new value."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            lines.append(f"{key}: was {_shown(before[key])}, now absent")
        elif key not in before:
            lines.append(f"{key}: was absent, now {_shown(after[key])}")
        elif not same(before[key], after[key]):
            lines.append(f"{key}: was {_shown(before[key])}, now {_shown(after[key])}")
    return lines


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
