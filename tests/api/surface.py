"""The names of the Python API with their signatures, as text. Not a test.

Run: python -m tests.api.surface > tests/api/surface.txt      after a change that is meant
"""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property

import tinyablation


def surface() -> str:
    """A line a name: functions, and the public members of classes, with their signatures."""
    return "\n".join(_lines()).replace("'", "") + "\n"


def _lines() -> Iterator[str]:
    for name in sorted(tinyablation.__all__):
        found = getattr(tinyablation, name)
        if inspect.isclass(found):
            yield f"class {name}"
            if not issubclass(found, Exception):
                yield from _members(found)
        elif callable(found):
            yield f"{name}{inspect.signature(found)}"
        else:
            yield name


def _members(found: type) -> Iterator[str]:
    for field in fields(found) if is_dataclass(found) else ():
        yield f"    {field.name}: {field.type}"
    for name, member in sorted(inspect.getmembers_static(found)):
        shown = name in ("plot", "_repr_html_") or not name.startswith("_")
        if not shown:
            continue
        if isinstance(member, classmethod):
            yield f"    classmethod {name}{inspect.signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"    {name}{inspect.signature(member)}"
        elif isinstance(member, property | cached_property):
            getter = member.fget if isinstance(member, property) else member.func
            yield f"    {name}: {inspect.signature(getter).return_annotation}"


if __name__ == "__main__":
    print(surface(), end="")
