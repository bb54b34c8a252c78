"""The evidence of claims: what a session reads while it judges them, collected and replayed.

`gather` judges cells again on a store that has their measurements, and collects everything that is
read: runs and readings, corpora, and descriptions of models. `rederive` judges them from that
alone. Both are ordinary pytest sessions with one more plugin (plugin/evidence.py), so the claim's
own function judges, and a missing measurement is an error.
"""

import os
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyablation.characters import printable
from tinyablation.corpora.corpus_folder import FolderName, Shelf
from tinyablation.corpora.examples import CorpusError
from tinyablation.corpora.library import Library
from tinyablation.errors import TinyAblationError, Unavailable, WeightsMissing
from tinyablation.files.contents import read_bytes
from tinyablation.files.manifests import MANIFEST, check_manifest, write_json
from tinyablation.interventions.batteries import PER_RELATION
from tinyablation.models.loading import ModelFacts, describe
from tinyablation.models.registry import Checkpoint, ModelEntry
from tinyablation.records.records import ProtocolName, Record, RecordFile, read_records
from tinyablation.runs.address import Name, RunConfig
from tinyablation.runs.store import RunStore

# In this order, because pytest rewrites a module's assertions only if it loads the module itself.
PLUGINS = ("tinyablation.plugin", "tinyablation.plugin.evidence")
RUNS, CORPORA, MODELS = "runs", "corpora", "models.json"
LEXICONS = Path("knowledge", "lexicons.toml")
_SAID = 1500  # characters of a failed session's output that an error repeats


class EvidenceError(TinyAblationError):
    """Evidence cannot be gathered, or no verdict rederived from it; the message says why."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Described(_Strict):
    """A model without its weights: its entry, the facts from its files, and its corpus folder.

    standing: whether the registry lists it, the session named it, or neither (a checkpoint).
    missing: why there are no facts. Paths are only names.
    """

    entry: ModelEntry
    standing: Literal["listed", "named", "neither"]
    facts: ModelFacts | None = None
    missing: str | None = None
    shelf: FolderName | None = None


class Models(_Strict):
    models: dict[str, Described] = {}


class Conduct(_Strict):
    """How the cells were judged: the options to repeat, and the kind of device."""

    protocol: ProtocolName = "corrected"
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    screen: Annotated[str, Field(pattern=r"^[0-9.]+%?:[0-9.]+%?$", max_length=40)] | None = None
    device: Name = "cpu"
    per_relation: Annotated[int, Field(ge=1, strict=True)] = PER_RELATION

    def options(self) -> list[str]:
        """The options of pytest, without the device, because nothing is computed on it."""
        chosen = ["--device=cpu", f"--seed={self.seed}", f"--dtype={self.dtype}"]
        chosen.append(f"--protocol={self.protocol}")
        if self.per_relation != PER_RELATION:
            chosen.append(f"--per-relation={self.per_relation}")
        return chosen + ([f"--screen={self.screen}"] if self.screen else [])


class Task(_Strict):
    """The task of the plugin. store: where to gather from; None: judge from `folder`.

    folder contains, or will contain, runs/, corpora/ and models.json.
    """

    folder: Path
    device: Name
    store: Path | None = None


# --- what a session reads ------------------------------------------------------------------------


class Nobody:
    """Takes the place of remote measurement and raises EvidenceError for anything missing."""

    def is_under_way(self, config: RunConfig) -> bool:
        return False

    def begin(self, bench: object, kind: str, config: RunConfig, **parts: object) -> NoReturn:
        raise EvidenceError(
            f"{config.name}: there is no complete measurement at this address (engine "
            f"{config.engine_version}, seed {config.seed}, {config.device} in {config.dtype})"
        )


@dataclass(frozen=True)
class GatheringStore(RunStore):
    """A store that copies each requested run from another store, if it is complete there."""

    source: Path = Path()

    def status(self, config: RunConfig) -> str:
        folder, own = self.source / config.name, self.path(config)
        if not own.exists() and (folder / MANIFEST).exists():
            for name in (*check_manifest(folder)["files"], MANIFEST):
                (own / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, own / name)
        return super().status(config)


class GatheringLibrary(Library):
    """A library that copies each requested corpus, with the manifest of its folder."""

    def __init__(self, library: Library, folder: Path, notes: "Notes") -> None:
        super().__init__(
            library.root,
            library.knowledge,
            library.cache,
            say=library.say,
            own=library.own,
            seed=library.seed,
        )
        self.folder = folder
        self.notes = notes

    def shelf(self, tokenizer_folder: Path, name: str, condition: str = "") -> Shelf:
        shelf = super().shelf(tokenizer_folder, name, condition)
        self.notes.shelves[name] = shelf.folder.name
        self._copy(shelf, MANIFEST)
        return shelf

    def corpus(self, tokenizer_folder: Path, condition: str, name: str) -> Any:
        found = super().corpus(tokenizer_folder, condition, name)
        if condition in self.own:
            return found
        shelf = super().shelf(tokenizer_folder, name, condition)
        for file in (f"{condition}.jsonl", f"{condition}.split.json"):
            self._copy(shelf, file)
        return found

    def _copy(self, shelf: Shelf, name: str) -> None:
        target = self.folder / shelf.folder.name / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shelf.folder / name, target)


@dataclass
class Notes:
    """Records the model descriptions used while evidence is gathered."""

    described: dict[str, tuple[ModelEntry, ModelFacts | None, str | None]] = field(
        default_factory=dict
    )
    shelves: dict[str, str] = field(default_factory=dict)

    def describe(self, entry: ModelEntry) -> ModelFacts:
        try:
            facts = describe(entry)
        except Unavailable as error:
            self.described[entry.id] = (entry, None, str(error))
            raise
        self.described[entry.id] = (entry, facts, None)
        return facts

    def models(self, standing: Any) -> Models:
        """The models to store. standing(id): as in Described."""
        return Models(
            models={
                name: Described(
                    entry=placeless(entry),
                    standing=standing(name),
                    facts=None if facts is None else _facts(facts, name),
                    missing=missing,
                    shelf=self.shelves.get(name),
                )
                for name, (entry, facts, missing) in sorted(self.described.items())
            }
        )


def placeless(entry: ModelEntry) -> ModelEntry:
    """The entry with names instead of this machine's folders."""

    def at(checkpoint: Checkpoint) -> Checkpoint:
        if checkpoint.source is None:
            return checkpoint
        name = f"{entry.id}-step{checkpoint.step:04d}"
        return checkpoint.model_copy(update={"source": Path("models", name)})

    source = None if entry.source is None else Path("models", entry.id)
    checkpoints = tuple(at(each) for each in entry.checkpoints)
    return entry.model_copy(update={"source": source, "checkpoints": checkpoints})


def _facts(facts: ModelFacts, name: str) -> ModelFacts:
    from dataclasses import replace

    return replace(facts, folder=Path("models", name))


class KeptLibrary(Library):
    """The corpora of a bundle, found by model id, because there are no tokenizers."""

    def __init__(self, root: Path, models: Models) -> None:
        super().__init__(root)
        self.models = models

    def shelf(self, tokenizer_folder: Path, name: str, condition: str = "") -> Shelf:
        kept = self.models.models.get(name)
        if kept is None or kept.shelf is None:
            raise CorpusError(f"the evidence holds no corpora for {name}")
        named = Shelf.at(self.root / kept.shelf)
        for shelf in self.standing():  # the evidence may contain two folders of corpora
            same = shelf.manifest.fingerprint == named.manifest.fingerprint
            if same and condition in shelf.manifest.built:
                return shelf
        return named


def kept_facts(models: Models, entry: ModelEntry) -> ModelFacts:
    """The facts a bundle has about a model; WeightsMissing if it was missing when gathered."""
    kept = models.models.get(entry.id)
    if kept is not None and kept.missing is not None:
        raise WeightsMissing(kept.missing)
    if kept is None or kept.facts is None:
        raise EvidenceError(f"the evidence does not describe the model {entry.id}")
    return kept.facts


def read_models(path: Path) -> Models:
    """Read models.json; EvidenceError if it is invalid."""
    return _read(path, Models)


def read_task(path: Path) -> Task:
    return _read(path, Task)


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return kind.model_validate_json(read_bytes(path))
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise EvidenceError(f"{path.name}: field {place}: {first['msg']}") from error


# --- how it was judged ---------------------------------------------------------------------------


def conduct_of(file: RecordFile, records: Sequence[Record], store: Path) -> Conduct:
    """How cells of one session were judged, from its command and the addresses of their runs."""
    asked = _command(file.session.command)
    if asked.heads is not None:
        raise EvidenceError(
            f"judged with --heads {asked.heads}, which a bundle does not keep; declare these heads "
            "in subjects.toml, and judge again"
        )
    configs = [
        _read(store / name / "config.json", RunConfig)
        for record in records
        for name in record.runs
        if (store / name / "config.json").exists()
    ]
    devices = {config.device for config in configs}
    if len(devices) > 1:
        raise EvidenceError(f"measured on {' and '.join(sorted(devices))}; bundle them separately")
    screens = {each.asked for record in records for each in record.screened}
    try:
        return Conduct(
            protocol=file.session.protocol,
            seed=configs[0].seed if configs else asked.seed,
            dtype=asked.dtype,
            screen=screens.pop() if len(screens) == 1 else asked.screen,
            device=devices.pop() if devices else file.session.device.partition(" ")[0],
            per_relation=asked.per_relation,
        )
    except ValidationError as error:
        raise _unreadable(file.session.command, error) from error


def named_models(command: str) -> list[str]:
    """The --model options of a session's command, with their names and revision."""
    asked = _command(command)
    options = [part for name in asked.model for part in ("--model", name)]
    options += [part for name in asked.name for part in ("--name", name)]
    return options + (["--revision", asked.revision] if options and asked.revision else [])


def _command(command: str) -> Any:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--per-relation", type=int, default=PER_RELATION)
    parser.add_argument("--screen")
    parser.add_argument("--heads")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--name", action="append", default=[])
    parser.add_argument("--revision")
    try:
        return parser.parse_known_args(shlex.split(command)[1:])[0]
    except (ValueError, ArgumentError) as error:
        raise _unreadable(command, error) from error


def _unreadable(command: str, error: Exception) -> EvidenceError:
    said = " ".join(printable(str(error)).split())[:200]
    return EvidenceError(
        f"the recorded session's command cannot be read ({said}): {printable(command)[:200]}"
    )


# --- sessions ------------------------------------------------------------------------------------


def gather(
    project: Path,
    folder: Path,
    tests: Sequence[str],
    conduct: Conduct,
    *,
    store: Path,
    models: Sequence[str] = (),
) -> RecordFile:
    """Judge cells again, and fill `folder` with everything that was used; the session.

    models: options for models that the registry does not list.
    """
    task = Task(folder=folder.resolve(), device=conduct.device, store=store.resolve())
    return _judged(project, task, tests, [*conduct.options(), *models])


def rederive(project: Path, folder: Path, tests: Sequence[str], conduct: Conduct) -> RecordFile:
    """Judge cells from `folder` alone; the session."""
    task = Task(folder=folder.resolve(), device=conduct.device)
    return _judged(project, task, tests, conduct.options())


def _judged(project: Path, task: Task, tests: Sequence[str], options: Sequence[str]) -> RecordFile:
    """Run a session in a separate process and read its records.

    The folder of evidence is also its reports folder, because claims look for verify.json there.
    Raises EvidenceError, with the session's output, if it left no records.
    """
    path = task.folder / ".task.json"
    write_json(path, task.model_dump(mode="json"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [
        *(f"-p{name}" for name in PLUGINS),
        "-c",
        "pytest.ini",
        f"--evidence={path}",
        f"--reports={task.folder}",
    ]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    settings.pop("CI", None)  # where a missing snapshot is a fault; a bundle may be read there
    settings |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    asked = task.folder / ".tests.txt"  # a command line holds 128 kB at most
    asked.write_text("".join(f"{test}\n" for test in tests), encoding="utf-8")
    done = subprocess.run(
        [*command, *options, f"@{asked}"],
        cwd=project,
        env=settings,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    path.unlink()
    asked.unlink()
    at = task.folder / "published" if "--protocol=published" in options else task.folder
    if not (at / "records.json").exists():
        said = printable((done.stdout + done.stderr).strip()[-_SAID:])
        raise EvidenceError(
            f"the claims could not be judged (pytest ended with {done.returncode}):\n{said}"
        )
    found = read_records(at / "records.json")
    judged = {record.test for record in found.records}
    missing = [test for test in tests if test not in judged]
    if missing:
        raise EvidenceError(f"{missing[0]}: was not judged; is it a claim of this version?")
    return found
