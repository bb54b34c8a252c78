"""Every reader of a file that somebody else may have written, with a small good file. Not tests.

As a script (`python -m tests.readers MINUTES [READER...]`, by `make fuzz`) it reads damaged files
until the time is over. One that a reader does not take is kept in tests/findings/<reader>/, where
tests/test_fuzzed_readers.py reads it ever after.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.synthetic_runs import N_EXAMPLES, SHARDS, baseline_rows, make_config, make_examples
from tinyablation.corpora.corpus_folder import Shelf
from tinyablation.corpora.examples import canonical_lines, load_corpus, load_split
from tinyablation.corpora.frames import load_frames
from tinyablation.corpora.knowledge import Relation, load_tables
from tinyablation.corpora.lexicons import load_lexicons
from tinyablation.corpora.own_conditions import read_own
from tinyablation.engine.tables import ENGINE_COLUMNS, check_examples, read_table, write_table
from tinyablation.errors import TinyAblationError
from tinyablation.evidence.archive import unpack, write_archive
from tinyablation.evidence.rederivation import (
    Described,
    Models,
    named_models,
    placeless,
    read_models,
)
from tinyablation.files.manifests import check_manifest, write_manifest
from tinyablation.models.checkpoint import read_config
from tinyablation.models.gguf import read_header
from tinyablation.models.limits import check_size
from tinyablation.models.registry import load_registry
from tinyablation.records.error_rates import goals, power_panel, read_error_rates
from tinyablation.records.packs import element
from tinyablation.records.records import read_records, write_records
from tinyablation.runs import directories
from tinyablation.runs.shards import Plan, ShardFolder
from tinyablation.sessions.baselines import read_baseline
from tinyablation.sessions.reading import read_session
from tinyablation.verdicts.predictions import load_predictions
from tinyablation.verdicts.published import load_published
from tinyablation.verdicts.subjects import load_subjects

ROOT = Path(__file__).parent.parent
FINDINGS = Path(__file__).parent / "findings"
LARGEST = 2**20  # bytes of a damaged file; the time it takes is counted
SECONDS, MEGABYTES = 1.0, 300  # of processor time, and of memory, for one file


class Reader(NamedTuple):
    """name: of the file, as the reader wants it; good: its bytes; read: reads it in its folder."""

    name: str
    good: bytes
    read: Callable[[Path], object]


# --- the good files ------------------------------------------------------------------------------


CLAIMS = ("claims", "suppressors")


def _text(*parts: str) -> bytes:
    return ROOT.joinpath(*parts).read_bytes()


def _session() -> dict[str, Any]:
    """A recorded session of two cells, with a short table of error rates."""
    found: dict[str, Any] = json.loads(_text("reports", "smollm2-135m", "records.json"))
    found["records"] = [
        next(each for each in found["records"] if each["claim"] == claim)
        for claim in ("H1.1", "V.1")
    ]
    found["session"]["error_rates"] = _rates()
    return found


def _rates() -> dict[str, Any]:
    rates = json.loads(_text("fixtures", "calibration", "error_rates.json"))
    return {name: value[:3] if isinstance(value, list) else value for name, value in rates.items()}


def _made(name: str, write: Callable[[Path], object]) -> bytes:
    """The bytes of the file of that name that `write` leaves in a folder."""
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        return (Path(made) / name).read_bytes()


def _parquet_records(folder: Path) -> None:
    (folder / "in.json").write_text(json.dumps(_session()))
    write_records(read_records(folder / "in.json"), folder)


def _bundle(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "records.json").write_text("{}")
    (folder / "in" / "runs").mkdir()
    (folder / "in" / "runs" / "one.txt").write_text("something")
    write_archive(folder / "given.zip", folder / "in", {"tests": ["one"]})


def _manifest(folder: Path) -> None:
    (folder / "one.json").write_text("{}")
    write_manifest(folder, ("one.json",), {"run": "x"})


def _plan() -> Plan:
    return Plan(tuple(SHARDS), N_EXAMPLES, check_examples(make_examples()))


def _sidecar(folder: Path) -> ShardFolder:
    """A folder with the first shard of a run."""
    shards = ShardFolder(folder, _plan(), "float32")
    shards.add(SHARDS[0], baseline_rows(), 1.5, [{"device": "cpu"}])
    return shards


def _gguf(folder: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(folder / "given.gguf", "llama")
    writer.add_name("A Tiny Llama")
    writer.add_block_count(4)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


# --- the readers ---------------------------------------------------------------------------------


def _read_split(path: Path) -> object:
    return load_split(path, load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl"))


def _read_bundle(path: Path) -> object:
    with tempfile.TemporaryDirectory() as made:
        return unpack(path, Path(made))


def _read_manifest(path: Path) -> object:
    with tempfile.TemporaryDirectory() as made:
        _manifest(Path(made))
        shutil.copyfile(path, Path(made) / "manifest.json")
        return check_manifest(Path(made))


def _read_run_config(path: Path) -> object:
    return directories.read_config(path.parent)


def _read_sidecar(path: Path) -> object:
    """As a session does that continues an interrupted run: it discards what it cannot trust."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "run"  # the address of a shard depends on it
        kept = _sidecar(folder)
        shutil.copyfile(path, kept._sidecar(SHARDS[0].key))
        shards = ShardFolder(folder, _plan(), "float32")
        shards.say("begun")
        if shards.recover_one(SHARDS[0]):
            float(shards.sidecars[SHARDS[0].key]["seconds"])
            shards.devices()
        return shards.discarded


def _read_partial(path: Path) -> object:
    with tempfile.TemporaryDirectory() as made:
        shutil.copyfile(path, Path(made) / "partial_summary.json")
        return ShardFolder(Path(made), _plan(), "float32").say("begun")


def _read_model(path: Path) -> object:
    config = read_config(path.parent, "given")
    figures = {"n_layers": 4, "d_model": 128, "vocab_size": 300}
    return check_size(config, figures, 10**9, path, "given")


def _read_rates(path: Path) -> object:
    rates = read_error_rates(path)
    return goals(rates), power_panel(rates)


def _read_command(path: Path) -> object:
    """The options of a recorded session's command, which a bundle passes on."""
    return named_models(read_records(path).session.command)


def _frames(path: Path) -> object:
    return load_frames(path.parent)


def readers() -> dict[str, Reader]:
    """Every reader by name; reads the good files."""
    facts = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl")
    own = [
        {name: getattr(each, name) for name in ("clean", "corrupt", "target", "foil")}
        for each in facts.examples[:8]
    ]
    session = json.dumps(_session()).encode()
    page = f"<!doctype html>{element('records.json', session.decode())}".encode()
    config = make_config()
    llama = "fixtures/organisms/tiny-llama"
    snapshot = json.loads(_text(*CLAIMS, "__snapshots__", "tiny-mistral-plain.json"))
    few = json.dumps(dict(list(snapshot.items())[:3])).encode()
    entry = placeless(load_registry(ROOT / "fixtures" / "models.toml")["tiny-llama"])
    kept = Described(entry=entry, standing="listed", facts=None, missing="not here", shelf="tiny")
    models = Models(models={"tiny-llama": kept}).model_dump_json().encode()
    return {
        "records": Reader("given.json", session, read_records),
        "command": Reader("given.json", session, _read_command),
        "parquet": Reader(
            "given.parquet", _made("records.parquet", _parquet_records), read_records
        ),
        "page": Reader("given.html", page, read_session),
        "bundle": Reader("given.zip", _made("given.zip", _bundle), _read_bundle),
        "facts of a bundle": Reader("models.json", models, read_models),
        "corpus": Reader("facts.jsonl", canonical_lines(facts.examples[:8]).encode(), load_corpus),
        "split": Reader(
            "facts.split.json", _text("corpora", "tiny", "facts.split.json"), _read_split
        ),
        "condition": Reader(
            "own.jsonl",
            "".join(f"{json.dumps(each)}\n" for each in own).encode(),
            lambda path: read_own("own", path),
        ),
        "corpora": Reader(
            "manifest.json",
            _text("corpora", "tiny", "manifest.json"),
            lambda path: Shelf.at(path.parent),
        ),
        "run config": Reader(
            f"{config.name}/config.json",
            json.dumps(config.model_dump(mode="json")).encode(),
            _read_run_config,
        ),
        "run manifest": Reader(
            "manifest.json",
            _made("manifest.json", _manifest),
            _read_manifest,
        ),
        "sidecar": Reader(
            "given.json",
            _made(f"run/shards/{SHARDS[0].key}.json", lambda folder: _sidecar(folder / "run")),
            _read_sidecar,
        ),
        "partial run": Reader(
            "given.json",
            _made("partial_summary.json", lambda folder: _sidecar(folder).say("begun", "L01")),
            _read_partial,
        ),
        "table": Reader(
            "given.parquet",
            _made(
                "t.parquet",
                lambda folder: write_table(folder / "t.parquet", baseline_rows(), ENGINE_COLUMNS),
            ),
            lambda path: read_table(path, ENGINE_COLUMNS),
        ),
        "error rates": Reader("given.json", json.dumps(_rates()).encode(), _read_rates),
        "snapshot": Reader("given.json", few, read_baseline),
        "model": Reader("config.json", _text(llama, "config.json"), _read_model),
        "gguf": Reader(
            "given.gguf", _made("given.gguf", _gguf), lambda path: read_header(path, "given")
        ),
        "registry": Reader("models.toml", _text("fixtures", "models.toml"), load_registry),
        "predictions": Reader(
            "predictions.toml", _text(*CLAIMS, "predictions.toml"), load_predictions
        ),
        "published": Reader("published.toml", _text(*CLAIMS, "published.toml"), load_published),
        "subjects": Reader("subjects.toml", _text(*CLAIMS, "subjects.toml"), load_subjects),
        "lexicons": Reader(
            "lexicons.toml", _text("corpora", "knowledge", "lexicons.toml"), load_lexicons
        ),
        "knowledge": Reader(
            "facts.toml",
            _text("corpora", "knowledge", "facts.toml"),
            lambda path: load_tables(path, Relation),
        ),
        "frames": Reader(
            "frames.toml", _text("corpora", "knowledge", "natural", "frames.toml"), _frames
        ),
    }


# --- damage --------------------------------------------------------------------------------------

_DEEP = 900
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, 1e308, -1e308, 2**63, 10**40, 10**400, float("nan")),
    *(float("inf"), "", " ", "x" * 5000, "\x00", "\ufeff", "\u2028", "\ud800", "a\nb", "\u202e"),
    *("</script>", "../../x", "/etc/passwd", "=1+1", "{{7*7}}", "-x", "é" * 500, "all"),
    *([], {}, [[]], [None], {"": None}, {"a": {}}, ["x"] * 2000),
)
LITERALS = (
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 100_000, b'{"a":' * _DEEP, b"\xff\xfe"),
    *(b'"\\ud800"', b"\x00", b"[" * _DEEP + b"]" * _DEEP, b"\xef\xbb\xbf", b"a." * 5000),
)
TOML = (
    *("nan", "inf", "-1", "1e308", "true", '""', "[]", "{}", '"x"', "1979-05-27", "12:00:00"),
    *("[" * 900 + "]" * 900, '"\\uD800"', "9" * 5000, '"../../x"', "'''a\nb'''", '["x", 1]'),
    *("{a = {b = [1]}}", "0xffffffffffffffffffffff", '"' + "x" * 5000 + '"', '"\\u0000"', "a"),
)


def damaged(good: bytes, name: str, draws: random.Random) -> bytes:
    """A good file, damaged in one to three ways that suit its kind."""
    data = good
    ways: list[Callable[[bytes, random.Random], bytes]] = [_flipped, _cut, _doubled, _put_in]
    if name.endswith((".json", ".jsonl")):
        ways = [_of_json, _of_json, _of_json, _of_json, *ways, _encoded]
    elif name.endswith(".toml"):
        ways = [_of_toml, _of_toml, _of_toml, _of_toml, *ways, _encoded]
    elif name.endswith(".html"):
        ways = [_of_page, _of_page, _of_page, *ways]
    elif name.endswith(".zip"):
        ways = [_of_zip, _of_zip, _of_zip, *ways]
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        data = draws.choice(ways)(data, draws)[:LARGEST]
    return data


def _flipped(data: bytes, draws: random.Random) -> bytes:
    changed = bytearray(data or b" ")
    for _ in range(draws.randint(1, 4)):
        changed[draws.randrange(len(changed))] = draws.randrange(256)
    return bytes(changed)


def _cut(data: bytes, draws: random.Random) -> bytes:
    begin = draws.randrange(len(data) + 1)
    return data[:begin] + (data[draws.randrange(len(data) + 1) :] if draws.random() < 0.5 else b"")


def _doubled(data: bytes, draws: random.Random) -> bytes:
    begin, end = sorted(draws.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[begin:end] * draws.choice((1, 1, 20)) + data[end:]


def _put_in(data: bytes, draws: random.Random) -> bytes:
    at = draws.randrange(len(data) + 1)
    return data[:at] + draws.choice(LITERALS) + data[at:]


def _encoded(data: bytes, draws: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(draws.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "replace")


def _of_json(data: bytes, draws: random.Random) -> bytes:
    """A value somewhere replaced, left out, renamed or given twice; in JSON lines, of one line."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    at = draws.randrange(len(lines))
    try:
        found = json.loads(lines[at])
    except (ValueError, RecursionError):
        return data
    places = list(_places(found))
    if places:
        held, key = draws.choice(places)
        way = draws.random()
        if way < 0.15:
            del held[key]
        elif way < 0.3 and isinstance(held, dict):
            held[draws.choice((str(key).upper(), "", "__class__", "x" * 300))] = held.pop(key)
        elif way < 0.4:
            held[key] = _nested(draws.choice((50, 99, 150, _DEEP)), draws.random() < 0.5)
        elif way < 0.55:
            other, name = draws.choice(places)
            held[key] = json.loads(json.dumps(other[name]))
        elif way < 0.65:
            held[key] = [held[key]] * draws.choice((1, 2, 2000))
        else:
            held[key] = draws.choice(VALUES)
    try:
        lines[at] = json.dumps(found, ensure_ascii=draws.random() < 0.8).encode(
            "utf-8", "surrogatepass"
        )
    except RecursionError:
        return data
    return b"\n".join(lines)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _nested(levels: int, as_lists: bool) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value] if as_lists else {"a": value}
    return value


def _of_toml(data: bytes, draws: random.Random) -> bytes:
    """A value replaced, a line left out, given twice or moved, a table's name changed."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = draws.randrange(len(lines))
    way = draws.random()
    if way < 0.15:
        del lines[at]
    elif way < 0.3:
        lines.insert(draws.randrange(len(lines)), lines[at])
    elif way < 0.4:
        lines[at] = re.sub(r"\w+", draws.choice(("x", "", "a.b", "é", '""')), lines[at], count=1)
    elif way < 0.5:
        lines[at] += draws.choice(TOML)
    else:
        valued = [number for number, line in enumerate(lines) if " = " in line]
        if valued:
            at = draws.choice(valued)
            lines[at] = lines[at].partition(" = ")[0] + " = " + draws.choice(TOML)
    return "\n".join(lines).encode("utf-8", "replace")


def _of_page(data: bytes, draws: random.Random) -> bytes:
    """The records within a page, damaged and packed again."""
    from tinyablation.records.packs import PackError, packs, unpack

    try:
        closed = packs(data.decode("utf-8", "replace")).get("records.json", "")
        text = unpack(closed).encode()
    except PackError:
        return data
    way = draws.choice((_of_json, _of_json, _cut, _put_in))
    inner = way(text, draws).decode("utf-8", "replace")
    return f"<!doctype html>{element('records.json', inner)}".encode()


def _of_zip(data: bytes, draws: random.Random) -> bytes:
    """Its files, with another manifest or name, or one more."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # damaged already, in any way that zipfile knows
        return data
    name = draws.choice(sorted(files))
    way = draws.random()
    if way < 0.5 and "manifest.json" in files:
        files["manifest.json"] = draws.choice((_of_json, _of_json, _cut, _put_in))(
            files["manifest.json"], draws
        )
    elif way < 0.7:
        files[name] = _flipped(files[name], draws)
    elif way < 0.9:
        odd = draws.choice(("../x", "/x", "a\\b", "x" * 300, "con", "MANIFEST.json", "a/", "é\n"))
        files[odd] = files.pop(name)
    else:
        del files[name]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
    return stream.getvalue()


# --- the property --------------------------------------------------------------------------------


class Fault(AssertionError):
    """A damaged file was neither read nor refused as it should be."""


def require_taken(reader: Reader, data: bytes, folder: Path) -> bool:
    """Whether the file was read, rather than refused; Fault if neither.

    Refused is an error of ours, in one line. Either way it is done within a second and 300 MB, and
    nothing in the folder is another.
    """
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    before = _listing(folder)
    memory = _from_now()
    begun = time.process_time()
    taken = True
    try:
        reader.read(path)
    except TinyAblationError as error:
        taken = False
        if "\n" in str(error).strip() or not str(error).strip():
            raise Fault(f"its error is not one line: {error!r}") from error
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}"[:300]) from error
    seconds = time.process_time() - begun
    grown = _peak() - memory
    if seconds > SECONDS:  # the first reading imports what it needs
        begun = time.process_time()
        with contextlib.suppress(TinyAblationError):
            reader.read(path)
        seconds = time.process_time() - begun
    if seconds > SECONDS:
        raise Fault(f"it took {seconds:.1f} s")
    if grown > MEGABYTES:
        raise Fault(f"it took {grown:,.0f} MB")
    if _listing(folder) != before:
        raise Fault(f"it left {_listing(folder)}, there was {before}")
    return taken


def _from_now() -> float:
    """Begin a new peak of the process's memory; what it holds now, in MB.

    A worker that once held 2 GB would notice nothing below that.
    """
    with contextlib.suppress(OSError):  # Linux alone can; elsewhere the peak is the process's own
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(each), each.stat().st_mtime_ns) for each in folder.rglob("*"))


def rounds(
    known: Mapping[str, Reader],
    draws: random.Random,
    more: Iterable[object],
    failed: Callable[[str, bytes, Fault], object],
) -> Counter[str]:
    """Read a damaged file of each reader, once for each of `more`; how many were "read", "refused".

    failed: is called with the reader's name, the file and its fault, where it was neither.
    """
    found: Counter[str] = Counter()
    log = logging.getLogger("tinyablation")
    level = log.level
    log.setLevel(logging.ERROR)  # else it tells of discarded shards, one by one
    try:
        with tempfile.TemporaryDirectory() as made:
            for name, reader in known.items():  # what it imports and caches is not the file's
                require_taken(reader, reader.good, Path(made) / name)
            for _ in more:
                for name, reader in known.items():
                    data = damaged(reader.good, reader.name, draws)
                    try:
                        taken = require_taken(reader, data, Path(made) / name)
                        found["read" if taken else "refused"] += 1
                    except Fault as fault:
                        found["faults"] += 1
                        failed(name, data, fault)
    finally:
        log.setLevel(level)
    return found


def main(minutes: float, only: list[str]) -> int:
    """Read damaged files for so long; how many faults of different kinds were found."""
    known = {name: each for name, each in readers().items() if not only or name in only}
    draws = random.Random(int.from_bytes(os.urandom(8)))
    until, kinds = time.monotonic() + 60 * minutes, set()

    def keep(name: str, data: bytes, fault: Fault) -> None:
        kind = re.sub(r"\d+|'.*", "", str(fault))[:80]
        if (name, kind) in kinds:
            return
        kinds.add((name, kind))
        path = FINDINGS / name / hashlib.sha256(data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{name}: {fault}\n  kept in {path.relative_to(ROOT)}", flush=True)

    found = rounds(known, draws, iter(lambda: time.monotonic() < until, False), keep)
    print(
        f"{found.total():,} damaged files of {len(known)} readers: {found['read']:,} read, "
        f"{found['refused']:,} refused, {len(kinds)} kinds of faults"
    )
    return len(kinds)


if __name__ == "__main__":
    sys.exit(min(1, main(float(sys.argv[1]), sys.argv[2:])))
