"""Bundles: the evidence of some cells as one archive, and the verdicts rederived from it.

    README.txt  manifest.json  records.json  claims.html  models.json  ro-crate-metadata.json
    runs/<name>/...  corpora/<name>/<condition>.{jsonl,split.json}  corpora/knowledge/lexicons.toml
    sources/claims/<pack>/<module>.py, {predictions,subjects,published}.toml
It contains no weights, and nothing in it is ever run: `sources/` is only compared with the
installed version.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyablation.characters import printable
from tinyablation.evidence.archive import BundleError, unpack, write_archive
from tinyablation.evidence.comparison import (
    Rederived,
    of_selection,
    session_differences,
    session_unverified,
)
from tinyablation.evidence.contents import (
    measured_runs,
    of_corpora,
    of_models,
    of_runs,
    require_engine,
    strangers,
)
from tinyablation.evidence.crate import CRATE, crate_text
from tinyablation.evidence.readme import readme
from tinyablation.evidence.rederivation import (
    CORPORA,
    LEXICONS,
    MODELS,
    RUNS,
    Conduct,
    EvidenceError,
    conduct_of,
    gather,
    named_models,
    read_models,
    rederive,
)
from tinyablation.files.contents import read_bytes
from tinyablation.files.manifests import MANIFEST
from tinyablation.models.file_hashes import file_hash, files_hash
from tinyablation.models.registry import Registry, load_registry
from tinyablation.records.conditions import ALL_CONDITIONS, NAMES
from tinyablation.records.plain import plain
from tinyablation.records.records import Record, RecordFile, claim_order, read_records
from tinyablation.report.markdown import one_line
from tinyablation.runs.address import RunConfig
from tinyablation.sessions.baselines import WITHOUT_MODEL

RECORDS, PAGE, README, SOURCES = "records.json", "claims.html", "README.txt", "sources"
TABLES_OF_CLAIMS = ("predictions.toml", "subjects.toml", "published.toml")
# A node id becomes an argument of pytest and must not look like an option or another file.
_TEST = re.compile(r"claims/(?:\w+/)?(test_\w+\.py)::test_\w+(\[[A-Za-z0-9][A-Za-z0-9._-]*\])?")
_MOST_LETTERS = 500  # of a node id; the longest of ours has 106
_MOST_SAID = 200  # characters of what an author says of a bundle
_Said = Annotated[str, Field(min_length=1, max_length=_MOST_SAID)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Facts(_Strict):
    """The facts in a bundle's manifest besides its files.

    instruments: sha256 of all modules that measure and judge; creators: who ran the session, and
    licence: of the bundle, an SPDX id, both as its author says.
    """

    tests: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    conduct: Conduct
    versions: dict[str, str]
    instruments: str
    creators: Annotated[list[_Said], Field(max_length=1_000)] = []
    licence: _Said | None = None


class Judgement(NamedTuple):
    """The result for a bundle.

    notes: how the installed version differs from the recording one; differences: what else in the
    bundle is not what it should be; unverified: what it says that could not be known here.
    """

    cells: list[Rederived]
    notes: list[str]
    differences: list[str]
    unverified: list[str]

    @property
    def same(self) -> bool:
        return not self.differences and not any(cell.differences for cell in self.cells)


# --- choosing cells ------------------------------------------------------------------------------


def choose(
    file: RecordFile,
    *,
    claims: Sequence[str] = (),
    models: Sequence[str] = (),
    conditions: Sequence[str] = (),
    tests: Sequence[str] = (),
) -> list[Record]:
    """The selected records, in canonical order; EvidenceError for a value that matches none.

    claims: ids, or families ("H1"); an empty list selects all.
    """
    found = file.records
    for what, wanted, of in (
        ("claim", claims, lambda record: record.claim),
        ("model", models, lambda record: record.model),
        ("condition", conditions, lambda record: record.condition),
        ("test", tests, lambda record: record.test),
    ):
        for one in wanted:
            if not any(_matches(what, one, of(record)) for record in found):
                known = sorted({of(record) for record in found}, key=claim_order)
                near = f"; there are: {', '.join(known)}" if what != "test" else ""
                raise EvidenceError(f"--{what} {one}: no such test case is recorded{near}")
        if wanted:
            found = [
                record for record in found if any(_matches(what, one, of(record)) for one in wanted)
            ]
    return found


def _matches(what: str, wanted: str, value: str) -> bool:
    return value == wanted or (what == "claim" and value.startswith(f"{wanted.rstrip('.')}."))


# --- writing -------------------------------------------------------------------------------------


def write_bundle(
    path: Path,
    project: Path,
    reports: Path,
    records: Sequence[Record],
    file: RecordFile,
    *,
    creators: Sequence[str] = (),
    licence: str | None = None,
) -> None:
    """Judge the cells again on the store under `reports`, and write everything that was used.

    project: the checkout whose claims judged them; creators, licence: as in Facts. Raises
    EvidenceError if a cell has no verdict, cannot be judged without measuring, or gives a result
    that differs from the record.
    """
    from tinyablation.report.page import write_report

    require_project(project)
    for record in records:
        if record.condition not in (*NAMES, ALL_CONDITIONS):
            raise EvidenceError(
                f"{record.test}: the condition {record.condition} is from a file (--condition), "
                "which a bundle does not hold; bundle other conditions, and send the file"
            )
        if record.verdict == "error":
            raise EvidenceError(f"{record.test}: has no verdict ({record.reason})")
    store = reports / RUNS
    conduct = conduct_of(file, records, store)
    tests = [_test(record.test) for record in records]
    known = load_registry(project / "fixtures" / "models.toml")
    unlisted = any(record.model not in known for record in records)
    named = named_models(file.session.command) if unlisted else []
    with TemporaryDirectory(prefix="tinyablation-") as made:
        judged, folder = Path(made, "judged"), Path(made, "bundle")
        judged.mkdir()
        folder.mkdir()
        derived = gather(project, judged, tests, conduct, store=store, models=named)
        _require_described(judged, records)
        for cell in _cells(project, known, records, derived):
            _require_same(cell)
        _collect(judged, folder, project)
        only = of_selection(file, records, derived.session)
        (folder / RECORDS).write_bytes(_records_text(only))
        write_report(only, folder / PAGE)
        _copy_sources(project, folder, tests)
        (folder / README).write_bytes(readme(only))
        facts = Facts(
            tests=tests,
            conduct=conduct,
            versions=file.session.versions,
            instruments=instruments(project),
            creators=[_stated("--creator", name) for name in creators],
            licence=None if licence is None else _stated("--license", licence),
        )
        names = [
            each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()
        ]
        (folder / CRATE).write_bytes(_crate(only, folder, names, facts))
        write_archive(path, folder, facts.model_dump(mode="json"))


def _stated(option: str, text: str) -> str:
    """What an author says of a bundle, on one line."""
    said = one_line(text)
    if not 0 < len(said) <= _MOST_SAID:
        raise EvidenceError(f"{option} {said[:60]!r}: give 1 to {_MOST_SAID} characters")
    return said


def require_project(project: Path) -> None:
    """Raise EvidenceError if the folder is not a checkout with the claims and fixtures to judge."""
    for name in ("pytest.ini", "conftest.py", "claims", "fixtures"):
        if not (project / name).exists():
            raise EvidenceError(
                f"{project.resolve()}: has no {name}: it is not a checkout of the project; run "
                "this in one, or give --project"
            )


def _require_same(cell: Rederived) -> None:
    found = cell.differences
    if found:
        other = cell.derived.verdict != cell.recorded.verdict and cell.derived.reason
        reason = f" ({other})" if other else ""
        raise EvidenceError(
            f"{cell.recorded.test}: the store does not give what is recorded{reason}; run the "
            "claim again, then bundle it:\n" + "\n".join(found)
        )


def _require_described(judged: Path, records: Sequence[Record]) -> None:
    models = read_models(judged / MODELS).models
    for record in records:
        if record.model and (record.model not in models or models[record.model].facts is None):
            raise EvidenceError(
                f"{record.test}: {record.model} is not on this machine, so there is no evidence; "
                "get it, or set HF_HOME to the cache that has it, then bundle again"
            )


def _collect(judged: Path, folder: Path, project: Path) -> None:
    """Copy what was gathered (runs, corpora, models), without the session's other files."""
    shutil.move(judged / MODELS, folder / MODELS)
    shutil.move(judged / CORPORA, folder / CORPORA)
    lexicons = folder / CORPORA / LEXICONS
    lexicons.parent.mkdir(parents=True)
    shutil.copyfile(project / CORPORA / LEXICONS, lexicons)
    (folder / RUNS).mkdir()
    for run in sorted((judged / RUNS).iterdir()):
        with suppress(OSError, ValidationError):  # a parent run, which is not evidence, or a lock
            RunConfig.model_validate_json(read_bytes(run / "config.json"))
            shutil.move(run, folder / RUNS / run.name)


def _records_text(file: RecordFile) -> bytes:
    text = json.dumps(plain(file, "records"), allow_nan=False, ensure_ascii=False, indent=1)
    return f"{text}\n".encode()


def _crate(file: RecordFile, folder: Path, names: Collection[str], facts: Facts) -> bytes:
    return crate_text(
        file,
        read_models(folder / MODELS),
        names,
        measured=measured_runs(file.session, folder / RUNS),
        creators=facts.creators,
        licence=facts.licence,
    )


def _copy_sources(project: Path, folder: Path, tests: Sequence[str]) -> None:
    for name in _sources(tests):
        target = folder / SOURCES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, target)


def _sources(tests: Sequence[str]) -> list[str]:
    """The files with the claims that judge these cells and what was registered beforehand."""
    modules = sorted({test.partition("::")[0] for test in tests})
    folders = sorted({module.rpartition("/")[0] for module in modules})
    return [*modules, *(f"{folder}/{table}" for folder in folders for table in TABLES_OF_CLAIMS)]


def instruments(project: Path) -> str:
    """sha256 of the modules that measure and judge, ignoring line ends."""
    return files_hash(sorted((project / "tinyablation").rglob("*.py")), text=True)


def _test(name: str) -> str:
    if len(name) > _MOST_LETTERS or not _TEST.fullmatch(name):
        shown = repr(name) if len(name) <= _MOST_LETTERS else f"{name[:60]!r}..."
        raise BundleError(f"{shown} is not the node id of a claim")
    return name


# --- judging -------------------------------------------------------------------------------------


def judge_bundle(path: Path, project: Path) -> Judgement:
    """Check every file of a bundle, rederive its verdicts, and compare all that it says with them.

    Nothing is downloaded, provided that the hub is offline (HF_HUB_OFFLINE, set before the call).
    Raises BundleError if it is broken, and EvidenceError if it lacks something that the installed
    claims need.
    """
    require_project(project)
    with _unpacked(path) as (folder, manifest):
        facts = _facts(path, manifest)
        file = read_records(folder / "bundle" / RECORDS)
        for record in file.records:
            _test(record.test)
        tests = sorted(record.test for record in file.records)
        if tests != sorted({_test(test) for test in facts.tests}):
            raise BundleError(f"{path}: {RECORDS} holds other test cases than {MANIFEST} names")
        known = load_registry(project / "fixtures" / "models.toml")
        notes = list(_notes(facts, folder / "bundle", project))
        for name in (RUNS, CORPORA, MODELS):
            if not (folder / "bundle" / name).exists():
                raise BundleError(f"{path}: has no {name}")
        found = _contents(folder / "bundle", manifest, facts, file)
        judged = folder / "judged"
        judged.mkdir()
        for name in (RUNS, CORPORA, MODELS):
            shutil.move(folder / "bundle" / name, judged / name)
        models = read_models(judged / MODELS)
        described = of_models(models, known)
        found += [*described.differences, *of_runs(judged, models)]
        unknown = [*described.unverified, *of_corpora(judged, project)]
        require_engine(judged, str(path))
        try:
            derived = rederive(project, judged, facts.tests, facts.conduct)
        except EvidenceError as error:
            raise (EvidenceError(f"{path}: {found[0]}") if found else error) from error
    cells = _cells(project, known, file.records, derived)
    for cell in cells:
        if cell.derived.verdict == "error":
            test, reason = cell.derived.test, printable(cell.derived.reason)
            first = f"; {found[0]}" if found else ""
            raise EvidenceError(f"{path}: {test} cannot be judged by it: {reason}{first}")
        unknown += cell.unverified
    found += session_differences(file, derived.session)
    unknown += session_unverified(file, derived.session)
    unknown.append("that the models give the figures in runs/: nothing was measured again")
    if facts.creators:
        unknown.append(f"who made it ({'; '.join(facts.creators)})")
    if facts.licence:
        unknown.append(f"its licence ({facts.licence})")
    return Judgement(cells, notes, found, unknown)


def _cells(
    project: Path, known: Registry, records: Sequence[Record], derived: RecordFile
) -> list[Rederived]:
    """The recorded cells beside the derived ones."""
    own = {record.test: record for record in derived.records}
    return [
        Rederived(
            record,
            own[record.test],
            baseline=_baseline(project, own[record.test]).is_file(),
            registered=own[record.test].model in ("", *known.local_ids),
            named=own[record.test].model not in ("", *known),
        )
        for record in records
    ]


def _baseline(project: Path, record: Record) -> Path:
    """The file with the snapshots of a cell's model, beside its claim."""
    module = project / record.test.partition("::")[0]
    return module.parent / "__snapshots__" / f"{record.model or WITHOUT_MODEL}.json"


def _contents(
    folder: Path, manifest: Mapping[str, Any], facts: Facts, file: RecordFile
) -> list[str]:
    """Files of a bundle that are not what is made of its records, or that no bundle holds."""
    from tinyablation.report.page import write_report

    sources = {f"{SOURCES}/{name}" for name in _sources(facts.tests)}
    found = strangers(manifest["files"], {RECORDS, PAGE, README, CRATE, MODELS, *sources})
    if facts.versions != file.session.versions:
        found.append(f"{MANIFEST}: versions are not those of {RECORDS}")
    # Beside the page, for it links to the runs that lie there.
    again = write_report(file, folder / f"again-{PAGE}", checked=False)
    made = {RECORDS: _records_text(file), PAGE: again.read_bytes()}
    if crated := CRATE in manifest["files"]:  # earlier versions made none
        made[CRATE] = _crate(file, folder, manifest["files"], facts)
    made[README] = readme(file, crate=crated)
    for name, wanted in made.items():
        own = folder / name
        if not own.is_file():
            found.append(f"{name}: is missing")
        elif own.read_bytes() != wanted:
            found.append(f"{name}: is not what this version makes of the records in the bundle")
    again.unlink()
    return found


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    with TemporaryDirectory(prefix="tinyablation-") as made:
        folder = Path(made)
        (folder / "bundle").mkdir()
        yield folder, unpack(path, folder / "bundle")


def _facts(path: Path, manifest: Mapping[str, Any]) -> Facts:
    said = {name: value for name, value in manifest.items() if name not in ("layout", "files")}
    try:
        return Facts.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {MANIFEST}: field {place}: {first['msg']}") from error


def _notes(facts: Facts, folder: Path, project: Path) -> Iterator[str]:
    """How the installed version differs from the one that judged the recorded cells."""
    pairs = {name: folder / SOURCES / name for name in _sources(facts.tests)}
    corpora = sorted(path for path in (folder / CORPORA).rglob("*") if path.is_file())
    pairs |= {path.relative_to(folder).as_posix(): path for path in corpora}
    for name, bundled in pairs.items():
        own = project / name
        if not bundled.is_file():
            yield f"{name} is not in the bundle, and cannot be compared"
        elif own.is_file() and (found := file_hash(own, text=True)) != (
            theirs := file_hash(bundled, text=True)
        ):
            yield f"{name} differs: installed is {found[:12]}, bundled {theirs[:12]}"
    if not (folder / CRATE).is_file():
        yield f"{CRATE} is not in the bundle: an earlier version made it"
    if (found := instruments(project)) != facts.instruments:
        yield f"instruments differ: installed are {found[:12]}, bundled {facts.instruments[:12]}"
