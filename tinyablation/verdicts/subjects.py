"""The heads that claims are about: subjects.toml.

One table for each model:

    [tiny-gpt2]
    suppressor = "0:5"
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from tinyablation.files.toml import read_toml
from tinyablation.heads import Head
from tinyablation.records.splits import BOTH, CONFIRMATION
from tinyablation.spelling import did_you_mean
from tinyablation.verdicts.expectations import (
    CLAIM,
    ExpectationError,
    place_of,
    validated,
)

_TomlHead = Annotated[Head, BeforeValidator(Head.parse)]


class _Heads(BaseModel):
    """Heads that claims are about, and how they were identified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suppressor: _TomlHead
    trio: tuple[_TomlHead, ...] = ()
    pair: tuple[_TomlHead, ...] = ()
    receiver: Annotated[int, Field(ge=1, strict=True)] | None = None
    source: Annotated[str, Field(min_length=1)]
    chosen_on: Literal["", "discovery"] = ""
    note: str = ""

    @model_validator(mode="after")
    def _sets_hold_the_suppressor(self) -> Self:
        for name, size in (("trio", 3), ("pair", 2)):
            heads: tuple[Head, ...] = getattr(self, name)
            if heads and (len(set(heads)) != size or len(heads) != size):
                raise ValueError(
                    f"{name} must be {'three' if size == 3 else 'two'} distinct heads, not "
                    f"{len(set(heads))}"
                )
            if heads and self.suppressor not in heads:
                raise ValueError(f"{name} must contain the suppressor {self.suppressor.label}")
        return self

    @property
    def judging(self) -> str:
        """The examples that judge the suppressor: both splits if it was named beforehand.

        One that was chosen by its effects on the discovery split is judged by the other.
        """
        return CONFIRMATION if self.chosen_on else BOTH

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every head named here, repeated if it is named in several places."""
        return (self.suppressor, *self.trio, *self.pair)


class Subject(_Heads):
    """The heads that claims about one model are about, and how they were identified.

    suppressor leads; trio: three distinct heads including the suppressor; pair: two such heads;
    either may be empty. receiver: the layer that a mediated path leads to (default: the middle
    layer). reference: the model with whose named head this one's is compared. claims: other heads
    for single claims, by ledger id, where sources contradict each other.
    """

    reference: Annotated[str, Field(min_length=1)] | None = None
    claims: Mapping[str, _Heads] = Field(default_factory=dict)

    @field_validator("claims")
    @classmethod
    def _claims_are_ids(cls, claims: Mapping[str, _Heads]) -> Mapping[str, _Heads]:
        for claim in claims:
            if not CLAIM.fullmatch(claim):
                raise ValueError(f'{claim!r} is not a claim id; write it quoted, such as "H1.6"')
        return claims

    def for_claim(self, claim: str) -> "Subject":
        """The heads that one claim is about: its own if it has any, else the model's."""
        own = self.claims.get(claim)
        return self if own is None else self.model_copy(update={**dict(own), "claims": {}})


class Subjects(NamedTuple):
    """Subjects by model id."""

    path: Path
    subjects: Mapping[str, Subject]

    def for_model(self, model: str) -> Subject | None:
        """The heads declared for a model; None if there are none."""
        return self.subjects.get(model)

    def check_shape(self, model: str, n_layers: int, n_heads: int) -> None:
        """Raise ExpectationError if the model has no such head or layer as is named for it."""
        found = self.subjects.get(model)
        for each in () if found is None else (found, *found.claims.values()):
            beyond = [
                head.label for head in each.heads if head.layer >= n_layers or head.head >= n_heads
            ]
            # A path may also lead to the stream after the last layer.
            if each.receiver is not None and each.receiver > n_layers:
                beyond.append(f"receiver {each.receiver}")
            if beyond:
                raise ExpectationError(
                    f"{self.path}: model {model!r} has {n_layers} layers of {n_heads} heads, "
                    f"counted from 0, and {beyond[0]} is not among them; name heads of the model "
                    "that was loaded, or load the intended model"
                )


def joined(files: Sequence[Subjects]) -> Subjects:
    """The tables of several files; ExpectationError for a model that two of them describe."""
    found: dict[str, Subject] = {}
    for file in files:
        for model, subject in file.subjects.items():
            if model in found:
                raise ExpectationError(
                    f"{file.path}: model {model!r} has a table in another subjects.toml too; keep "
                    "one of them"
                )
            found[model] = subject
    return Subjects(files[-1].path if files else Path("subjects.toml"), found)


def load_subjects(path: str | Path, models: Collection[str] | None = None) -> Subjects:
    """Read subjects.toml: one table per model id.

    If `models` is given, model ids and references must be among them.
    """
    path = Path(path)
    text, document = read_toml(path, ExpectationError)
    subjects = {}
    for model, table in document.items():
        place = place_of(path, text, model)
        if models is not None and model not in models:
            raise ExpectationError(
                f"{place}: {model!r} is not a registered model; {did_you_mean(model, models)}"
            )
        found = validated(Subject, table, f"{place}: model {model!r}")
        if models is not None and found.reference not in (None, *models):
            raise ExpectationError(
                f"{place_of(path, text, model, 'reference')}: model {model!r}: reference "
                f"{found.reference!r} is not a registered model; "
                f"{did_you_mean(found.reference, models)}"
            )
        subjects[model] = found
    return Subjects(path, subjects)
