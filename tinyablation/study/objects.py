"""JSON objects of the study, read strictly: a fault is one line with file, key and what to do."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tinyablation.errors import TinyAblationError
from tinyablation.files import contents
from tinyablation.spelling import did_you_mean

Data = dict[str, Any]


class StudyError(TinyAblationError):
    """A config, battery or data file of the study cannot be used; the message says where."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def read_object(path: Path) -> Data:
    """The JSON object in a file; StudyError if it has none, or a key twice."""
    try:
        value = contents.parse_json(contents.read_bytes(path), finite=True, pairs=_once)
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file; --root names the folder of lab/") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except ValueError as error:
        raise StudyError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise StudyError(f"{path}: must be a JSON object, not {type(value).__name__}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> Data:
    found: Data = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name!r} occurs twice")
        found[name] = value
    return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Data:
    """`base` with the values of `over`; objects are merged, key by key."""
    found = dict(base)
    for key, value in over.items():
        own = found.get(key)
        both = isinstance(own, dict) and isinstance(value, dict)
        found[key] = merged(own, value) if both else value  # type: ignore[arg-type]
    return found


def refuse_unknown(path: Path, where: str, data: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise StudyError, with a line for each, if there are keys that are not known."""
    unknown = [key for key in data if key not in known]
    if unknown:
        raise StudyError("\n".join(f"{path}: {where}{unknown_key(key, known)}" for key in unknown))


def unknown_key(key: str, known: Sequence[str]) -> str:
    return f"{key}: there is no such key; {did_you_mean(key, known)}"


def explained(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each fault that pydantic found: key, what is wrong, the nearest known key."""
    lines = []
    for each in error.errors(include_url=False):
        *inner, last = each["loc"] or ("",)
        where = ".".join(map(str, each["loc"]))
        if each["type"] == "extra_forbidden":
            place = "".join(f"{part}." for part in inner)
            lines.append(place + unknown_key(str(last), _keys(model, inner)))
        elif each["type"] == "missing":
            lines.append(f"{where}: is missing")
        else:
            said = each["msg"].removeprefix("Value error, ")
            shown = json.dumps(each["input"], default=str)[:80]
            is_own = each["type"] == "value_error"
            lines.append(f"{where}: {said}" if is_own else f"{where}: {said}, not {shown}")
    return lines


def _keys(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys that a model knows at a place within it."""
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # an index of a list
        model = next(_models(field.annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within an annotation, such as list[Pair] | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)
