"""How facts of the natural world become prompts: families of wordings, read from frames.toml.

A wording has a text with fields for each cell of its family; `render` fills them in for one pair of
facts. Sentences are capitalised last, so texts may begin with any phrase.
"""

import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from tinyablation.corpora.knowledge import Fact, KnowledgeError, Table, explain
from tinyablation.corpora.world import FRAMES, WorldRelation
from tinyablation.files.toml import read_toml

AS_ASKED = "as asked"
Words = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z ]*$")]
_FIELDS = frozenset(
    {"ask", "ask1", "ask2", "ask3", "ask4", "a", "w", "says_a", "says_w", "denies_a", "denies_w"}
    | {"denied", "either_aw", "either_wa", "other_says_a", "other_says_w", "says_null"}
)
_SENTENCE = re.compile(r"([.?!:] )([a-z])")


class Family(Table):
    """One family of prompts; see the head of frames.toml."""

    about: Literal["facts", "nonces", "opposites"]
    null: Words
    pairs: int = Field(gt=0)
    relations: list[str] | Annotated[int, Field(gt=0, multiple_of=2)] | None = None
    labels: tuple[str, str] | None = None
    target: dict[str, str]
    mirror: dict[str, str] = Field(default={})
    wordings: dict[Name, dict[str, Words]] = Field(min_length=2)

    @model_validator(mode="after")
    def _cells_agree(self) -> "Family":
        for name, texts in self.wordings.items():
            if set(texts) != set(self.target):
                raise ValueError(
                    f"wordings.{name}: has the cells {sorted(texts)}, target has "
                    f"{sorted(self.target)}"
                )
            for cell, text in texts.items():
                _known_fields(f"wordings.{name}.{cell}", text)
        if self.null != AS_ASKED:
            _known_fields("null", self.null)
        allowed = self.labels or ("a", "w")
        for cell, target in self.target.items():
            if target not in allowed:
                raise ValueError(f"target.{cell}: {target!r} is none of {', '.join(allowed)}")
        if self.labels is not None:
            mirrored = {**self.mirror, **{there: here for here, there in self.mirror.items()}}
            if set(mirrored) != set(self.target):
                raise ValueError("mirror: must join every cell of target with one other")
            for here, there in self.mirror.items():
                if self.target[here] == self.target[there]:
                    raise ValueError(f"mirror.{here}: {there!r} has the same label")
        elif self.mirror:
            raise ValueError("mirror: is for families with labels")
        return self

    @property
    def names_answers(self) -> bool:
        """Whether its prompts mention an answer before they ask."""
        texts = [text for wording in self.wordings.values() for text in wording.values()]
        said = ("{a}", "{w}", "says_", "denies_", "either_")
        return any(field in text for text in texts for field in said)

    def mirror_of(self, cell: str) -> str:
        """The cell whose text is the corrupt prompt of this one (itself, without labels)."""
        back = {there: here for here, there in self.mirror.items()}
        return self.mirror.get(cell) or back.get(cell) or cell


def _known_fields(where: str, text: str) -> None:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise ValueError(f"{where}: {text!r}: {error}") from None
    for field in fields:
        if field not in _FIELDS:
            raise ValueError(
                f"{where}: no field {{{field}}}; known are {', '.join(sorted(_FIELDS))}"
            )


class Pair(NamedTuple):
    """Two facts with contrasting answers; subject: what is asked about, first's or another."""

    first: Fact
    second: Fact
    subject: str

    def turned(self) -> "Pair":
        """The pair in reverse; if it asks about first's subject, it then asks about second's."""
        subject = self.second.subject if self.subject == self.first.subject else self.subject
        return Pair(self.second, self.first, subject)


def load_frames(folder: Path) -> dict[str, dict[str, Family]]:
    """Condition -> family -> its wordings; KnowledgeError names the file and the wrong field."""
    path = folder / FRAMES
    _, conditions = read_toml(path, KnowledgeError)
    found: dict[str, dict[str, Family]] = {}
    for condition, families in conditions.items():
        if not isinstance(families, dict):
            raise KnowledgeError(f"{path}: {condition}: must be a table of families")
        found[condition] = {}
        for name, table in families.items():
            try:
                found[condition][name] = Family.model_validate(table)
            except ValidationError as error:
                raise explain(path, Family, error, f"{condition}.{name}") from None
    return found


def render(text: str, relation: WorldRelation, pair: Pair) -> str:
    """A wording's text about one pair of facts, up to but excluding the answer."""
    return sentence_case(text.format(**phrases(relation, pair)))


def phrases(relation: WorldRelation, pair: Pair) -> Mapping[str, str]:
    """The values of the fields of a text."""
    a, w, subject = pair.first.answer, pair.second.answer, pair.subject
    asks = [ask.format(subject=subject) for ask in relation.asks]
    denial = relation.denies.format(subject=subject, object="")
    other = relation.asks[0].format(subject=pair.second.subject)
    return {
        "ask": asks[0],
        **{f"ask{number}": ask for number, ask in enumerate(asks) if number},
        "a": a,
        "w": w,
        "says_a": f"{asks[0]} {a}",
        "says_w": f"{asks[0]} {w}",
        "says_null": f"{asks[0]} something",
        "denies_a": denial + a,
        "denies_w": denial + w,
        "denied": denial.strip(),
        "either_aw": f"{asks[0]} either {a} or {w}",
        "either_wa": f"{asks[0]} either {w} or {a}",
        "other_says_a": f"{other} {a}",
        "other_says_w": f"{other} {w}",
    }


def sentence_case(text: str) -> str:
    """Capitalise the first letter of every sentence: "the sky is. it" -> "The sky is. It"."""
    text = _SENTENCE.sub(lambda match: match[1] + match[2].upper(), text)
    return text[0].upper() + text[1:]
