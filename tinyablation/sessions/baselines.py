"""Baselines: the figures that later sessions are compared with, one JSON file a model.

    {
      "H1.1 test_top_suppressor_is_in_layer_zero facts": {
        "verdict": "supported", "subject": "0:2", "n_examples": 144, "n_clusters": 24,
        "effect": 0.952468, "low": 0.83738, "high": 1.08589,
        "floor": 0.160948, "p_corrected": 0.0002
      },

An entry is a test case: claim, test and condition. Entries are in the order of claims and a figure
keeps its line, so that a diff of two versions shows the figures that moved and no others. Whoever
writes holds <folder>/.lock, reads what is there and puts a whole new file in its place: writers
lose nothing of each other, and one that is killed leaves the old file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import read_bytes
from tinyablation.files.manifests import remove_leftovers, write_atomic, writing
from tinyablation.records.plain import Count, Number, Plain, RecordError, plain, shortened
from tinyablation.records.records import Verdict, claim_order
from tinyablation.sessions.differences import replaced
from tinyablation.spelling import did_you_mean

DIGITS = 6  # significant digits in a file: a hundredfold finer than RELATIVE, and readable
LOCK = ".lock"
WITHOUT_MODEL = "_without-model"  # a file's name; no id of a model begins so
_MOST_DIGITS = 18
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that is half a character, if it stands alone
# The figures that share a line: those that move together.
_LINES = (
    ("verdict", "subject", "n_examples", "n_clusters"),
    ("effect", "low", "high"),
    ("margin", "margin_low", "margin_high"),
    ("floor", "p_corrected"),
)
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True).encode

Figures = dict[str, Any]


class BaselineError(TinyAblationError):
    """A baseline file that cannot be used, or figures that none may hold; it names the cause."""


class Case(NamedTuple):
    """What an entry is about, within the file of a model."""

    claim: str
    test: str
    condition: str

    def __str__(self) -> str:
        return " ".join(self)


class _Entry(Plain):
    """The figures of a test case. What a file lacks of them is found to differ, and is no fault."""

    verdict: Verdict | None = None
    subject: str | None = None
    n_examples: Count | None = None
    n_clusters: Count | None = None
    effect: Number | None = None
    low: Number | None = None
    high: Number | None = None
    margin: Number | None = None
    margin_low: Number | None = None
    margin_high: Number | None = None
    floor: Number | None = None
    p_corrected: Number | None = None
    figures: Figures = Field(default={}, description="further ones, named by the claim")


# --- reading -------------------------------------------------------------------------------------


def read_baseline(path: Path) -> dict[Case, Figures]:
    """The entries of a file, none where there is no file; BaselineError names file and fault."""
    try:
        text = read_bytes(path).decode("utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _broken(path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _broken(path, "is not UTF-8") from error
    try:
        return dict(_parsed(text))  # a copy, for whoever writes changes it
    except BaselineError as error:
        raise _broken(path, str(error)) from error


@lru_cache(maxsize=64)  # every test case asks for its model's file, twice
def _parsed(text: str) -> dict[Case, Figures]:
    """The entries of a file's text; BaselineError says what is wrong with it, and not where."""
    try:
        entries = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_whole
        )
        if _HALF.search(text):
            json.dumps(entries, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise BaselineError("is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise BaselineError("has half a character (a lone surrogate)") from error
    except ValueError as error:
        raise BaselineError(f"is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise BaselineError(f"holds no object of test cases, but a {type(entries).__name__}")
    found: dict[Case, Figures] = {}
    for key, entry in entries.items():
        try:
            found[_case(key)] = checked(entry)
        except BaselineError as error:
            raise BaselineError(f"{key!r}: {error}") from None
    return found


def checked(entry: Any) -> Figures:
    """The figures themselves, if a baseline may hold them; BaselineError says what it may not."""
    if not isinstance(entry, dict):
        raise BaselineError(f"holds no figures, but a {type(entry).__name__}")
    try:
        _Entry.model_validate(entry)
    except RecordError as error:
        raise BaselineError(str(error)) from None
    except RecursionError:
        raise BaselineError("is nested too deeply") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(name, _Entry.model_fields)
            raise BaselineError(f"the figure {name!r} is unknown; {hint}") from None
        raise BaselineError(f"{name}: {first['msg']}, not {first['input']!r}"[:300]) from None
    return entry


def _case(key: str) -> Case:
    claim, _, rest = key.partition(" ")
    test, _, condition = rest.rpartition(" ")
    if not (claim and test and condition):
        raise BaselineError("names no test case, which is a claim, a test and a condition")
    return Case(claim, test, condition)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BaselineError(f"{name!r} stands there twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> None:
    raise BaselineError(f"{name} is no finite number")


def _whole(text: str) -> int:
    # Longer ones are no figure, and no float can be compared with the longest.
    if len(text) > _MOST_DIGITS:
        raise BaselineError(f"a whole number of {len(text)} digits is no figure")
    return int(text)


def _broken(path: Path, fault: str) -> BaselineError:
    return BaselineError(
        f"{path}: {' '.join(fault.split())}. Correct it, or restore it (git checkout -- {path}); "
        "until then nothing is compared with it or written to it"
    )


# --- writing -------------------------------------------------------------------------------------


def rounded(value: Any) -> Any:
    """The same data with floats at DIGITS significant digits; NaN and infinity are refused."""
    try:
        return shortened(plain(value, "a figure of a baseline"), DIGITS)
    except RecordError as error:
        raise BaselineError(str(error)) from error


def add_to_baseline(path: Path, entries: Mapping[Case, Figures], *, replace: bool) -> None:
    """Write entries to a file that other processes may be writing to as well.

    replace: whether figures that moved replace those that are there; else these stay as they are.
    Figures within tolerance always do, so that a baseline does not creep. Raises BaselineError
    for a file that is broken, NotWritten where the system refuses; the file is then untouched.
    """
    from filelock import FileLock

    lock = path.parent / LOCK
    with writing(lock):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire()
    try:
        remove_leftovers(path.parent)
        found = read_baseline(path)
        changed = {
            case: replaced(found[case], entry) if case in found else entry
            for case, entry in entries.items()
            if replace or case not in found
        }
        # As text, for to Python 1 is True. Where nothing changes, a file's own layout stays.
        if any(_json(entry) != _json(found.get(case)) for case, entry in changed.items()):
            text = as_text(found | changed)
            write_atomic(path, lambda handle: handle.write(text.encode("utf-8")))
    finally:
        held.release()


def as_text(entries: Mapping[Case, Figures]) -> str:
    """The text of a file, the same for the same entries."""
    ordered = sorted(entries, key=lambda case: (claim_order(case.claim), case))
    blocks = ",\n".join(f"  {_json(str(case))}: {_block(entries[case])}" for case in ordered)
    return f"{{\n{blocks}\n}}\n" if entries else "{}\n"


def _block(entry: Figures) -> str:
    lines = ",\n".join(_lines(entry))
    return f"{{\n{lines}\n  }}" if lines else "{}"


def _lines(entry: Figures) -> Iterator[str]:
    for names in _LINES:
        pairs = [f"{_json(name)}: {_json(entry[name])}" for name in names if name in entry]
        if pairs:
            yield "    " + ", ".join(pairs)
    if "figures" in entry:
        further = [
            f"      {_json(name)}: {_json(figure)}"
            for name, figure in sorted(entry["figures"].items())
        ]
        inner = "\n" + ",\n".join(further) + "\n    " if further else ""
        yield f'    "figures": {{{inner}}}'
