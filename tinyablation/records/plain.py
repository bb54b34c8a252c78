"""Plain values: those allowed in a record, on a pytest report and in a JSON file.

Python and JSON types only: no numpy scalars, no NaN. A numpy scalar on a pytest report makes xdist
lose that report, so claims pass everything they record through `plain` first.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tinyablation.errors import TinyAblationError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]


class RecordError(TinyAblationError):
    """A value cannot be recorded, or a record file cannot be read; the message says why."""


def plain(value: Any, where: str = "value") -> Any:
    """`value` with plain Python and JSON types only, for pytest reports and record files.

    numpy scalars and arrays (anything with `.tolist()`), tuples, mappings with text keys and
    pydantic models are converted. Lone surrogates in text become visible escapes, because UTF-8
    cannot encode them.

    Raises RecordError, which names the path of keys (`details.per_head[3]`), for NaN, infinity and
    any other type.
    """
    return _plain(value, where)


# Of figures that are shown and not judged: all that a float32 is sure of. On a page of a thousand
# test cases, digits of which the measurement knows nothing took 0.3 MB.
SHOWN_DIGITS = 7


def shortened(value: Any, digits: int = SHOWN_DIGITS) -> Any:
    """A plain value with each float to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, list):
        return [shortened(item, digits) for item in value]
    if isinstance(value, dict):
        return {key: shortened(item, digits) for key, item in value.items()}
    return value


# Where a value is: the name of the whole, or where what holds it is, and how it is called there.
# Put into words for an error alone, because a session asks for some million values.
_Place = str | tuple[Any, str | int]


def _plain(value: Any, place: _Place) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if isinstance(value, str):
        text = str.__str__(value)  # exact str: xdist refuses subclasses such as numpy.str_
        if text.isascii():
            return text
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        if not math.isfinite(value):
            where = _words(place)
            raise RecordError(f"{where} is {float(value)}: only finite numbers can be recorded")
        return float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(item, (place, index)) for index, item in enumerate(value)]
    if isinstance(value, BaseModel):
        later: frozenset[str] = getattr(kind, "LATER", frozenset())
        return {
            name: _plain(getattr(value, name), (place, name))
            for name, field in kind.model_fields.items()
            if name not in later or getattr(value, name) != field.default
        }
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RecordError(f"{_words(place)} has the key {key!r}: keys must be text")
        return {_plain(key, place): _plain(item, (place, key)) for key, item in value.items()}
    to_list = getattr(value, "tolist", None)  # numpy, without importing it
    if callable(to_list):
        converted = to_list()
        if type(converted) is not kind:
            return _plain(converted, place)
    raise RecordError(
        f"{_words(place)} is a {kind.__module__}.{kind.__qualname__}: record numbers, text, lists "
        "and mappings only"
    )


def _words(place: _Place) -> str:
    if isinstance(place, str):
        return place
    outer, name = place
    return f"{_words(outer)}[{name}]" if isinstance(name, int) else f"{_words(outer)}.{name}"


class Plain(BaseModel):
    """Base class of everything recorded: frozen, no unknown fields, plain values only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Fields added since, left out where they are at their default: what was recorded before keeps
    # its bytes, and a bundle of an earlier version its records.json.
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _only_plain_values(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {
                key: item if _is_recorded(item) else plain(item, str(key))
                for key, item in data.items()
            }
        return data


def _is_recorded(value: Any) -> bool:
    """Whether a value was validated when it was made: it is not taken apart to be so again."""
    return isinstance(value, Plain) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, Plain) for each in value)
    )
