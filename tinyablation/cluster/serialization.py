"""Frozen dataclasses of this package as plain JSON values and back, to send them to other machines.

{"is": "tinyablation.interventions.head_sets:Subsets", "heads": [[0, 7], [0, 0]], "method": "zero",
...}

A description names a dataclass of this package and gives its fields; nothing else can be built from
one, even if it is malicious.
"""

import dataclasses
import importlib
import re
from typing import Any

from tinyablation.errors import TinyAblationError

KIND = "is"
_KIND = re.compile(r"^(tinyablation(?:\.[a-z_]\w*)+):([A-Za-z]\w*)$")


class DescriptionError(TinyAblationError):
    """A value cannot be described in plain values, or a description is of an unknown class."""


def describe(value: Any) -> Any:
    """Plain JSON values from which `rebuild` makes an equal object; sequences become tuples.

    Raises DescriptionError for anything but this package's frozen dataclasses, sequences and plain
    values.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple | list):
        return [describe(each) for each in value]
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if not dataclasses.is_dataclass(kind) or not _KIND.match(name):
        raise DescriptionError(
            f"a {kind.__module__}.{kind.__qualname__} cannot be sent to another process: only the "
            "frozen dataclasses of tinyablation, tuples and plain values can"
        )
    fields = [field.name for field in dataclasses.fields(kind) if field.init]
    return {KIND: name} | {field: describe(getattr(value, field)) for field in fields}


def rebuild(description: Any) -> Any:
    """The object that `describe` described; DescriptionError if this version has no such class."""
    if isinstance(description, list):
        return tuple(rebuild(each) for each in description)
    if not isinstance(description, dict):
        return description
    name = str(description.get(KIND))
    found = _KIND.match(name)
    try:
        if found is None:
            raise DescriptionError(f"{name!r} names no dataclass of tinyablation")
        kind = getattr(importlib.import_module(found[1]), found[2])
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            raise DescriptionError(f"{name!r} is not a dataclass")
        return kind(**{key: rebuild(each) for key, each in description.items() if key != KIND})
    except (ImportError, AttributeError, TypeError) as error:
        raise DescriptionError(
            f"{name}: not known here ({error}); give workers and session the same version of "
            "tinyablation"
        ) from error
