"""Folders of corpora for one tokenizer, each with a manifest that identifies the tokenizer.

The manifest identifies the tokenizer by its fingerprint and each corpus by its content hash, so
neither a folder's name nor a changed file can mislead. It is written last: a folder without one is
incomplete.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinyablation.corpora.examples import (
    Corpus,
    CorpusError,
    Split,
    load_corpus,
    load_split,
    write_corpus,
)
from tinyablation.corpora.tokenizer_fingerprint import fingerprint_of
from tinyablation.files.contents import read_bytes
from tinyablation.files.hashes import digest
from tinyablation.files.manifests import MANIFEST, write_json
from tinyablation.records.conditions import BINDING, NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyablation.corpora.builder import Built

# Incremented when the same knowledge and tokenizer give other examples, for either world.
# 2 of the embedded one: everything in every wording, all cells of logic in every cluster.
BUILDER = 1
EMBEDDED_BUILDER = 2

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A plain folder name, so that a path made from it cannot lead elsewhere.
FolderName = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200)]


def _is_named(condition: str) -> str:
    if condition not in NAMES:
        raise ValueError(f"{condition!r} is not a condition; there are: {', '.join(NAMES)}")
    return condition


Condition = Annotated[str, AfterValidator(_is_named)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Made(_Strict):
    """One condition: its content hashes, or why it has too few examples."""

    examples: Annotated[int, Field(ge=0)]
    corpus: Sha256 | None = None
    split: Sha256 | None = None
    refused: Annotated[str, Field(max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _either(self) -> "Made":
        there = self.corpus is not None and self.split is not None
        if there == (self.refused is not None) or (self.corpus is None) != (self.split is None):
            raise ValueError("either corpus and split, or refused, must be given")
        return self


class Manifest(_Strict):
    """The tokenizer that the corpora of a folder are for, and what they were made from.

    layout: incremented when a field changes its meaning. tokenizer: its name; vocabulary: its
    number of ids; seed, knowledge and builder determine the examples, and are None if they were not
    built here.
    """

    layout: Literal[1] = 1
    tokenizer: FolderName
    fingerprint: Sha256
    vocabulary: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)] | None = None
    knowledge: Sha256 | None = None
    builder: Annotated[int, Field(gt=0)] | None = None
    conditions: Annotated[dict[Condition, Made], Field(min_length=1)]

    @property
    def built(self) -> tuple[str, ...]:
        """The conditions that have examples."""
        return tuple(name for name, made in self.conditions.items() if made.refused is None)


@dataclass(frozen=True)
class Shelf:
    """A folder of corpora with its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def at(cls, folder: Path) -> "Shelf":
        """The shelf of a folder; CorpusError names file and field if its manifest is unusable."""
        path = folder / MANIFEST
        remedy = "build the corpora again, or `python -m tinyablation corpora adopt` them"
        try:
            return cls(folder, Manifest.model_validate_json(read_bytes(path)))
        except OSError as error:
            raise CorpusError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part)[:60] for part in first["loc"])
            where = f"field {field!r}: " if field else ""
            reason = first["msg"].removeprefix("Value error, ")
            raise CorpusError(f"{path}: {where}{reason}; {remedy}") from None

    def load(self, condition: str, tokenizer: str) -> tuple[Corpus, Split]:
        """Read a condition; CorpusError if its content differs from the manifest."""
        made = self.manifest.conditions[condition]
        path = self.folder / f"{condition}.jsonl"
        corpus = load_corpus(path, condition=condition, tokenizer=tokenizer)
        split_path = path.with_suffix(".split.json")
        split = load_split(split_path, corpus)
        for file, found, named in (
            (path, corpus.content_hash, made.corpus),
            (split_path, split.content_hash, made.split),
        ):
            if found != named:
                raise CorpusError(
                    f"{file}: has content {found[:12]}, but {MANIFEST} names {str(named)[:12]}: it "
                    "was changed; build the corpora again, or `python -m tinyablation corpora "
                    "adopt` them as they are"
                )
        return corpus, split


def knowledge_hash(folder: Path) -> str:
    """sha256 of the content of the tables that corpora are built from, not of comments or layout.

    Raises KnowledgeError, which names file and field, if a table cannot be used.
    """
    from tinyablation.corpora.binding import load_binding
    from tinyablation.corpora.knowledge import load_knowledge

    knowledge = load_knowledge(folder)
    tables: list[tuple[str, BaseModel]] = [*knowledge.relations.items()]
    tables += [("kinds", knowledge.kinds), ("wording", knowledge.wording)]
    tables.append((BINDING, load_binding(folder)))
    # As text, because the order of facts and words determines the pairs.
    return digest([(name, table.model_dump_json(by_alias=True)) for name, table in tables])


def natural_hash(folder: Path) -> str:
    """sha256 of the content of the natural world's tables and of "binding"; see knowledge_hash."""
    from tinyablation.corpora.binding import load_binding
    from tinyablation.corpora.frames import load_frames
    from tinyablation.corpora.natural import NATURAL
    from tinyablation.corpora.world import load_world

    world = load_world(folder / NATURAL)
    tables: list[tuple[str, BaseModel]] = [*world.relations.items(), ("nonces", world.nonces)]
    for condition, families in load_frames(folder / NATURAL).items():
        tables += [(f"{condition}.{name}", family) for name, family in families.items()]
    tables.append(("binding", load_binding(folder)))
    return digest([(name, table.model_dump_json(by_alias=True)) for name, table in tables])


def put_on_shelf(
    folder: Path,
    built: "Built",
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    *,
    knowledge: str,
    seed: int,
    builder: int = BUILDER,
) -> Shelf:
    """Write everything that was built into `folder`, the manifest last; CorpusError if it fails.

    knowledge: the hash of the tables the corpora were built from; builder: the version of what
    built them.
    """
    conditions = {
        condition: Made(examples=0, refused=reason) for condition, reason in built.refused.items()
    }
    with _writing(folder):
        (folder / MANIFEST).unlink(missing_ok=True)  # incomplete until the new one is written
        for condition in conditions:  # files of an earlier build
            for file in (f"{condition}.jsonl", f"{condition}.split.json"):
                (folder / file).unlink(missing_ok=True)
    for condition, (corpus, split) in built.corpora.items():
        write_corpus(folder, corpus, split)
        conditions[condition] = _made(corpus, split)
    return _label(
        folder, conditions, tokenizer, name, seed=seed, knowledge=knowledge, builder=builder
    )


def adopt(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> Shelf:
    """Write the manifest of corpora in `folder` that were not built here; they are not changed.

    Raises CorpusError if there are none, or a corpus or its split cannot be read.
    """
    conditions = {}
    for condition in NAMES:
        path = folder / f"{condition}.jsonl"
        if path.exists():
            corpus = load_corpus(path, condition=condition)
            conditions[condition] = _made(
                corpus, load_split(path.with_suffix(".split.json"), corpus)
            )
    if not conditions:
        names = ", ".join(f"{condition}.jsonl" for condition in NAMES)
        raise CorpusError(f"{folder}: has no corpus; it needs at least one of {names}")
    name = folder.resolve().name
    return _label(folder, conditions, tokenizer, name, seed=None, knowledge=None, builder=None)


def _made(corpus: Corpus, split: Split) -> Made:
    return Made(examples=len(corpus.examples), corpus=corpus.content_hash, split=split.content_hash)


def _label(
    folder: Path,
    conditions: Mapping[str, Made],
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    *,
    seed: int | None,
    knowledge: str | None,
    builder: int | None,
) -> Shelf:
    try:
        manifest = Manifest.model_validate(
            {
                "tokenizer": name,
                "fingerprint": fingerprint_of(tokenizer),
                "vocabulary": len(tokenizer),
                "seed": seed,
                "knowledge": knowledge,
                "builder": builder,
                "conditions": {
                    condition: conditions[condition]
                    for condition in NAMES
                    if condition in conditions
                },
            }
        )
    except ValidationError as error:  # only the name comes from outside
        first = error.errors()[0]
        raise CorpusError(f"{folder}: {first['loc'][0]} {name!r}: {first['msg']}") from None
    with _writing(folder):
        write_json(folder / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
    return Shelf(folder, manifest)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be written ({error.strerror})") from error
