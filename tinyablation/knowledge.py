"""The world the corpora speak of: facts by relation, kinds of things, and the wording of prompts.

The tables are TOML files in one folder (`corpora/knowledge/`): facts.toml, classes.toml and
templates.toml. They are source: whatever is rendered from them can be rebuilt.
"""

import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinyablation.errors import TinyAblationError

Tone = Literal["neutral", "certain", "doubt"]
Word = Annotated[str, Field(pattern=r"^\S+$")]  # answers are one word, without the leading space


class KnowledgeError(TinyAblationError):
    """A knowledge table cannot be used; the message names the file and the field."""


class Fact(NamedTuple):
    """One subject of one relation, and its only right answer."""

    relation: str
    subject: str
    answer: str

    @property
    def id(self) -> str:
        return f"{self.relation}/{self.subject}"


class Member(NamedTuple):
    """One entity of one kind."""

    kind: str
    entity: str

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.entity}"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _require_fields(text: str, *names: str) -> str:
    found = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    if set(found) != set(names):
        wanted = ", ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"{text!r} must have exactly the fields {wanted}")
    return text


class Relation(_Table):
    phrase: str
    facts: dict[str, Word]

    @model_validator(mode="after")
    def _phrase_has_a_subject(self) -> "Relation":
        _require_fields(self.phrase, "subject")
        return self


class Kinds(_Table):
    """classes.toml: what each attribute is introduced with, and the word each kind has for it."""

    attributes: dict[str, str]
    kinds: dict[str, dict[str, list[Word] | Word]]

    @model_validator(mode="after")
    def _every_kind_is_complete(self) -> "Kinds":
        wanted = {"members", *self.attributes}
        for kind, row in self.kinds.items():
            if set(row) != wanted:
                missing, unknown = sorted(wanted - set(row)), sorted(set(row) - wanted)
                raise ValueError(f"kinds.{kind}: missing {missing}, unknown {unknown}")
            if not isinstance(row["members"], list):
                raise ValueError(f"kinds.{kind}.members must be a list of words")
        return self

    def members(self, kind: str) -> list[Member]:
        return [Member(kind, entity) for entity in self.kinds[kind]["members"]]

    def word(self, kind: str, attribute: str) -> str:
        """What `kind` has for `attribute`: word("birds", "cover") is "feathers"."""
        word = self.kinds[kind][attribute]
        assert isinstance(word, str)
        return word


class Frames(_Table):
    facts: dict[str, str]
    counterfactual: dict[str, str]
    truth: dict[str, str]


class Statements(_Table):
    affirmed: str
    negated: str
    both: str = Field(alias="and")
    either: str = Field(alias="or")


class Labels(_Table):
    true: Word
    false: Word


class Null(_Table):
    word: Word


class Cells(_Table):
    facts: list[str]
    counterfactual: list[str]
    truth: list[str]


class Wording(_Table):
    """templates.toml: prefixes by tone, frames by kind of prompt, and the cells the corpora use."""

    prefixes: dict[Tone, dict[str, str]]
    frames: Frames
    statements: Statements
    labels: Labels
    null: Null
    corpus: Cells

    @model_validator(mode="after")
    def _fields_and_cells_exist(self) -> "Wording":
        for text in self.frames.facts.values():
            _require_fields(text, "phrase")
        for text in self.frames.counterfactual.values():
            _require_fields(text, "entity", "kind", "attribute")
        for text in self.frames.truth.values():
            _require_fields(text, "statement")
        for text in (self.statements.affirmed, self.statements.negated):
            _require_fields(text, "phrase", "object")
        for text in (self.statements.both, self.statements.either):
            _require_fields(text, "first", "second")
        prefixes = [prefix for tone in self.prefixes.values() for prefix in tone]
        if len(set(prefixes)) != len(prefixes):
            raise ValueError("a prefix id stands under two tones")
        for name in ("facts", "counterfactual", "truth"):
            known = {f"{prefix}.{frame}" for prefix in prefixes for frame in self.cells(name)}
            for cell in getattr(self.corpus, name):
                if cell not in known:
                    raise ValueError(f"corpus.{name}: {cell!r} is no prefix.frame of this file")
        return self

    def cells(self, name: str) -> Mapping[str, str]:
        """The frames of one kind of prompt: facts, counterfactual or truth."""
        frames: Mapping[str, str] = getattr(self.frames, name)
        return frames

    def prefix(self, prefix_id: str) -> str:
        return next(tone[prefix_id] for tone in self.prefixes.values() if prefix_id in tone)


class Knowledge(NamedTuple):
    relations: Mapping[str, Relation]
    kinds: Kinds
    wording: Wording

    def facts(self, relation: str) -> list[Fact]:
        table = self.relations[relation].facts
        return [Fact(relation, subject, answer) for subject, answer in table.items()]


def _read_table(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KnowledgeError(f"{path}: no such knowledge table") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path}: not readable as UTF-8 TOML: {error}") from None


def _explain(path: Path, error: ValidationError, where: str = "") -> KnowledgeError:
    first = error.errors()[0]
    field = ".".join([*([where] if where else []), *map(str, first["loc"])])
    return KnowledgeError(f"{path}: {field or 'table'}: {first['msg']}")


def load_knowledge(folder: Path) -> Knowledge:
    """Read the three tables of `folder`; KnowledgeError names the file and the field at fault."""
    facts = folder / "facts.toml"
    relations: dict[str, Relation] = {}
    for name, row in _read_table(facts).items():
        try:
            relations[name] = Relation.model_validate(row)
        except ValidationError as error:
            raise _explain(facts, error, name) from None
    tables: list[BaseModel] = []
    for file, model in (("classes.toml", Kinds), ("templates.toml", Wording)):
        try:
            tables.append(model.model_validate(_read_table(folder / file)))
        except ValidationError as error:
            raise _explain(folder / file, error) from None
    kinds, wording = tables
    assert isinstance(kinds, Kinds) and isinstance(wording, Wording)
    return Knowledge(relations, kinds, wording)
