"""Lines of a corpus damaged in every way a seeded generator thinks of. Not tests."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyablation.corpora.examples import CorpusError, Example, canonical_lines, load_corpus

# What JSON can hold where text or a truth value is wanted, and text that breaks readers.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, 10**40, "", " ", [], {}, [[]], {"a": None}),
    *(
        "\x00",
        "\ufeff",
        "\u2028",
        "\ud800",
        "\U0001f600",
        "é" * 500,
        "a\nb",
        "</script>",
        "../../x",
    ),
)
LITERALS = (b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b"{" * 3000, b'"\\ud800"')
ENCODINGS = ("utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-32", "cp1252", "utf-7")


def damaged_lines(rows: Sequence[dict[str, Any]], count: int, seed: int) -> Iterator[bytes]:
    """So many lines made of good rows, none of them twice in the same way; some are still good."""
    draws = random.Random(seed)
    ways = (_bytes, _cut, _spliced, _fields, _values, _literals, _encoded, _answers, _doubled)
    for _ in range(count):
        row = dict(draws.choice(rows))
        line = json.dumps(row, ensure_ascii=draws.random() < 0.5).encode()
        for _ in range(draws.choice((1, 1, 1, 2, 3))):
            way: Callable[[random.Random, dict[str, Any], bytes], bytes] = draws.choice(ways)
            line = way(draws, row, line)
        yield line


def read_damaged(folder: Path, rows: Sequence[Example], count: int, seed: int) -> Counter[str]:
    """Read so many damaged lines, each after a good one: how many were accepted, or refused.

    Raises what is neither an example that comes back as it was read nor a CorpusError with file
    and line; AssertionError where it is one without.
    """
    path, again = folder / "facts.jsonl", folder / "again.jsonl"
    first = canonical_lines(rows[:1]).encode()
    found: Counter[str] = Counter()
    for line in damaged_lines([asdict(row) for row in rows[1:]], count, seed):
        path.write_bytes(first + line + b"\n")
        try:
            corpus = load_corpus(path)
        except CorpusError as error:
            # One of its own line ends may have made several lines of it.
            said = str(error)
            assert re.match(rf"{re.escape(str(path))}(, line \d+)?: .", said, re.DOTALL), line
            if "one format" not in said:  # says of the whole file that it mixes two
                assert ", line 1:" not in said and ", line " in said, (line, said)
            found["refused"] += 1
        else:
            again.write_text(canonical_lines(corpus.examples), encoding="utf-8", newline="")
            read = load_corpus(again, condition="facts", tokenizer=corpus.tokenizer)
            assert read.content_hash == corpus.content_hash, line
            found["accepted"] += 1
    return found


def _place(draws: random.Random, line: bytes) -> int:
    return draws.randrange(len(line) + 1)


def _bytes(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """A few bytes replaced by any."""
    changed = bytearray(line or b"{}")
    for _ in range(draws.randint(1, 4)):
        changed[draws.randrange(len(changed))] = draws.randrange(256)
    return bytes(changed)


def _cut(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """A stretch left out, mostly the end."""
    at = _place(draws, line)
    return line[:at] + (line[_place(draws, line) :] if draws.random() < 0.4 else b"")


def _spliced(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """A stretch of the line, or anything, put in somewhere."""
    at, begin = _place(draws, line), _place(draws, line)
    some = draws.choice(
        (line[begin : begin + 30], draws.randbytes(5), b"\x00", b"\r", b"\n", b"//")
    )
    return line[:at] + some + line[at:]


def _fields(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """A field left out, renamed or added."""
    name = draws.choice(sorted(row))
    value = row.pop(name)
    if draws.random() < 0.6:
        row[draws.choice((name.upper(), name + "s", "", "__class__", "train"))] = value
    return json.dumps(row).encode()


def _values(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """A field of another value, or type."""
    row[draws.choice(sorted(row))] = draws.choice(VALUES)
    return json.dumps(row).encode()


def _literals(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """What Python's reader of JSON takes or breaks on, in place of a value or of everything."""
    literal = draws.choice(LITERALS)
    head, colon, rest = line.partition(b": ")
    return literal if draws.random() < 0.3 else head + colon + literal + rest[rest.find(b",") :]


def _encoded(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """The row as another program on another system would have saved it."""
    text = json.dumps({**row, "null": "café – Ω"}, ensure_ascii=False)
    return text.encode(draws.choice(ENCODINGS), errors="replace")


def _answers(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """An answer in a prompt, or one answer for both."""
    answer = str(row.get(draws.choice(("target", "foil")), ""))
    side = draws.choice(("clean", "corrupt", "target", "foil"))
    row[side] = draws.choice((f"Is it{answer} or not", answer.upper(), f"{answer} is it"))
    return json.dumps(row).encode()


def _doubled(draws: random.Random, row: dict[str, Any], line: bytes) -> bytes:
    """A field twice, or the whole object."""
    inner = line.rstrip(b"}")
    return line + line if draws.random() < 0.3 else inner + b', "clean": "twice"}'
