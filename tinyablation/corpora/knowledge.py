"""The world the corpora are about: facts by relation, kinds of things, and wordings of prompts.

The tables are TOML files in one folder (`corpora/knowledge/`): facts.toml, classes.toml and
templates.toml. They are source: everything rendered from them can be rebuilt. (binding.toml, in the
same folder, belongs to binding.py.)
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinyablation.errors import TinyAblationError
from tinyablation.files.toml import read_toml
from tinyablation.spelling import did_you_mean

Tone = Literal["neutral", "certain", "doubt"]
Word = Annotated[str, Field(pattern=r"^\S+$")]  # answers are one word, without the leading space
Name = Annotated[str, Field(pattern=r"^[^.\s]+$")]  # prefix or frame; a dot joins the two


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


class Table(BaseModel):
    """Base of every table: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyTable = TypeVar("AnyTable", bound=Table)


def require_fields(where: str, text: str, *names: str) -> None:
    """Raise ValueError, led by `where`, unless the format string has exactly these fields."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{where}: {text!r}: {error}") from None
    found = [(field, form, conversion) for _, field, form, conversion in parts if field is not None]
    if set(found) != {(name, "", None) for name in names}:
        wanted = ", ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"{where}: {text!r} must have exactly the fields {wanted}")


class Facts(Table):
    """The facts of a relation: the answer for each subject, and pairs of similar answers."""

    facts: dict[str, Word]
    alike: list[tuple[Word, Word]] = []  # answers that could both be given; never contrasted

    @model_validator(mode="after")
    def _alike_answers_exist(self) -> Self:
        answers = set(self.facts.values())
        for pair in self.alike:
            for word in pair:
                if word not in answers:
                    raise ValueError(f"alike: {word!r} is the answer of no fact here")
        return self

    def contrasts(self, first: str, second: str) -> bool:
        """Whether one answer is plainly wrong where the other is right."""
        same = first == second
        return not same and (first, second) not in self.alike and (second, first) not in self.alike


class Relation(Facts):
    phrase: str

    @model_validator(mode="after")
    def _phrase_has_a_subject(self) -> "Relation":
        require_fields("phrase", self.phrase, "subject")
        return self


class Kinds(Table):
    """classes.toml: the phrase of each attribute, and each kind's word for it."""

    attributes: dict[str, str]
    kinds: dict[str, dict[str, list[Word] | Word]]

    @model_validator(mode="after")
    def _every_kind_is_complete(self) -> "Kinds":
        wanted = {"members", *self.attributes}
        for kind, row in self.kinds.items():
            if set(row) != wanted:
                missing, unknown = sorted(wanted - set(row)), sorted(set(row) - wanted)
                raise ValueError(f"kinds.{kind}: missing {missing}, unknown {unknown}")
            members = row["members"]
            if not isinstance(members, list) or len(set(members)) != len(members):
                raise ValueError(f"kinds.{kind}.members must be a list of different words")
            for attribute in self.attributes:
                if not isinstance(row[attribute], str):
                    raise ValueError(f"kinds.{kind}.{attribute} must be one word")
        return self

    def members(self, kind: str) -> list[Member]:
        return [Member(kind, entity) for entity in self.kinds[kind]["members"]]

    def word(self, kind: str, attribute: str) -> str:
        """The word of `kind` for `attribute`: word("birds", "cover") is "feathers"."""
        word = self.kinds[kind][attribute]
        assert isinstance(word, str)
        return word


class Frames(Table):
    facts: dict[Name, str]
    counterfactual: dict[Name, str]
    truth: dict[Name, str]


class Statements(Table):
    affirmed: str
    negated: str
    both: str = Field(alias="and")
    either: str = Field(alias="or")


class Labels(Table):
    true: Word
    false: Word


class Null(Table):
    word: Word


class Cells(Table):
    facts: list[str] = Field(min_length=1)
    counterfactual: list[str] = Field(min_length=1)
    truth: list[str] = Field(min_length=1)


class Wording(Table):
    """templates.toml: prefixes by tone, frames by kind of prompt, and the cells the corpora use."""

    prefixes: dict[Tone, dict[Name, str]]
    frames: Frames
    statements: Statements
    labels: Labels
    null: Null
    corpus: Cells

    @model_validator(mode="after")
    def _fields_and_cells_exist(self) -> "Wording":
        wanted = {
            "facts": ("phrase",),
            "counterfactual": ("entity", "kind", "attribute"),
            "truth": ("statement",),
        }
        for name, names in wanted.items():
            for frame, text in self.cells(name).items():
                require_fields(f"frames.{name}.{frame}", text, *names)
        statements = self.statements
        require_fields("statements.affirmed", statements.affirmed, "phrase", "object")
        require_fields("statements.negated", statements.negated, "phrase", "object")
        require_fields("statements.and", statements.both, "first", "second")
        require_fields("statements.or", statements.either, "first", "second")
        if self.labels.true == self.labels.false:
            raise ValueError(f"labels.false: {self.labels.false!r} is labels.true as well")
        prefixes = [prefix for tone in self.prefixes.values() for prefix in tone]
        if len(set(prefixes)) != len(prefixes):
            twice = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
            raise ValueError(f"prefixes: {twice!r} is listed under two tones")
        for name in wanted:
            known = {f"{prefix}.{frame}" for prefix in prefixes for frame in self.cells(name)}
            cells = getattr(self.corpus, name)
            for cell in cells:
                if cell not in known:
                    raise ValueError(f"corpus.{name}: {cell!r} is not a prefix.frame of this file")
                if cells.count(cell) > 1:
                    raise ValueError(f"corpus.{name}: {cell!r} is listed twice")
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


def _known_fields(model: type[BaseModel], places: tuple[int | str, ...]) -> list[str]:
    """The fields of the table at `places` inside `model`; empty if any name is allowed."""
    for place in places:
        field = next((f for n, f in model.model_fields.items() if place in (n, f.alias)), None)
        inner: Any = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def explain(
    path: Path, model: type[BaseModel], error: ValidationError, where: str = ""
) -> KnowledgeError:
    # Report an unknown field first: a missing one is usually the same field, spelt correctly.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    field = ".".join([*([where] if where else []), *map(str, first["loc"])])
    reason = first["msg"]
    if first["type"] == "value_error":  # raised above, and it names its own field
        reason = str(first["ctx"]["error"])
    elif first["type"] == "extra_forbidden":
        known = _known_fields(model, first["loc"][:-1])
        reason = f"unknown field; {did_you_mean(first['loc'][-1], known)}"
    return KnowledgeError(f"{path}: {field}: {reason}" if field else f"{path}: {reason}")


def load_table(path: Path, model: type[AnyTable]) -> AnyTable:
    """Read one table of type `model`; KnowledgeError names the file and the wrong field."""
    _, table = read_toml(path, KnowledgeError)
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise explain(path, model, error) from None


def load_tables(path: Path, model: type[AnyTable]) -> dict[str, AnyTable]:
    """Read a file that holds a table of type `model` under each name."""
    _, rows = read_toml(path, KnowledgeError)
    tables: dict[str, AnyTable] = {}
    for name, row in rows.items():
        try:
            tables[name] = model.model_validate(row)
        except ValidationError as error:
            raise explain(path, model, error, name) from None
    return tables


def load_knowledge(folder: Path) -> Knowledge:
    """Read the three tables of `folder`; KnowledgeError names the file and the wrong field."""
    relations = load_tables(folder / "facts.toml", Relation)
    kinds = load_table(folder / "classes.toml", Kinds)
    return Knowledge(relations, kinds, load_table(folder / "templates.toml", Wording))
