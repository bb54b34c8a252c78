"""The address of a measurement: everything its figures depend on, and nothing else.

No path, host, time or worker is part of it, so the same measurement has the same address on every
machine. Two measurements that could differ never share an address (a later run on another device
never overwrites a table).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tinyablation.errors import RunError
from tinyablation.files.hashes import HASH_DIGITS, digest

# Names become folder names; hashes are tokens. Neither may contain a path separator.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Token = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z:._+-]*$", max_length=200)]


# The version of the engine that computed a run: increment it whenever a figure could change.
ENGINE_VERSION = "5"


ALL_SPLITS = "all"
# The condition of a reading that uses no corpus: its inputs are made from the vocabulary alone, or
# are given with it and are part of its name.
NO_CORPUS = "no-corpus"
# Fields that are part of the address only if they are set.
_OPTIONAL = ("corpus_hash", "split_hash", "selection", "wordings")


class RunConfig(BaseModel):
    """Everything one run depends on: one model, one battery, one condition, one seed.

    `device`: the kind ("cuda", not "cuda:1"); `dtype`: the model's, without "torch.".
    `config_hash`: of the fields of config.json that affect the computation, because the same
    weights with another epsilon or rotary base are another model. `bos`: whether every prompt
    begins with a BOS token; `share`: the share of fact clusters that the seed draws from each
    split; `split`: the one that is measured ("all": both); `per_cluster`: the most examples of a
    cluster (0: all). `selection`: names the examples that count for the model (known_facts.py);
    `wordings`: "one" if each item was measured in one of its wordings only, "in-turn" if a
    cluster's few examples took wordings and cells in turn. The last two are part of the address
    only if they are set, and so are corpus_hash and split_hash, which a reading without a corpus
    does not have; its condition is NO_CORPUS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Name
    battery: Name
    condition: Name
    weight_hash: Token
    config_hash: Token
    tokenizer_hash: Token
    corpus_hash: Token | None = None
    split_hash: Token | None = None
    engine_version: Token
    dtype: Name
    device: Name
    seed: Annotated[int, Field(ge=0, strict=True)]
    bos: Annotated[bool, Field(strict=True)]
    protocol: Name = "corrected"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    split: Name = ALL_SPLITS
    per_cluster: Annotated[int, Field(ge=0, strict=True)] = 0
    selection: Token | None = None
    wordings: Token | None = None

    @field_validator("device", mode="before")
    @classmethod
    def _kind_of_device(cls, value: Any) -> Any:
        # The address does not say which of several equal accelerators computed a table.
        return str(value).split(":", maxsplit=1)[0]

    @field_validator("dtype", mode="before")
    @classmethod
    def _name_of_dtype(cls, value: Any) -> Any:
        return str(value).removeprefix("torch.")

    @model_validator(mode="after")
    def _corpus_and_split(self) -> RunConfig:
        if {self.has_corpus} != {self.corpus_hash is not None, self.split_hash is not None}:
            raise ValueError(
                "corpus_hash and split_hash: both are needed, but neither under the condition "
                f"{NO_CORPUS!r}"
            )
        return self

    @property
    def has_corpus(self) -> bool:
        """Whether a corpus was measured; False for a reading made from the vocabulary."""
        return self.condition != NO_CORPUS

    @property
    def hash(self) -> str:
        """The first 12 hex digits of sha256 over the canonical JSON of every field that is set."""
        unset = {name for name in _OPTIONAL if getattr(self, name) is None}
        return digest(self.model_dump(mode="json", exclude=unset))[:HASH_DIGITS]

    @property
    def name(self) -> str:
        """The run's directory name: `<model>-<battery>-<condition>_<hash>`."""
        return f"{self.model}-{self.battery}-{self.condition}_{self.hash}"


def parent_name(children: Mapping[str, RunConfig]) -> str:
    """The directory name of the run over several conditions: `<model>-<battery>_<hash>`.

    The hash covers condition -> child hash, independent of order. Raises RunError if children
    differ in anything but condition, corpus and split, because their heads are not comparable.
    """
    if not children:
        raise RunError("no single-condition run given: nothing to combine")
    shared: dict[str, Any] | None = None
    for condition, config in children.items():
        if config.condition != condition:
            raise RunError(f"run {config.name} was given as condition {condition!r}")
        kept = config.model_dump(
            exclude={
                "condition",
                "corpus_hash",
                "split_hash",
                "selection",
                "per_cluster",
                "wordings",
            }
        )
        shared = kept if shared is None else shared
        differing = sorted(key for key in kept if kept[key] != shared[key])
        if differing:
            raise RunError(
                f"run {config.name} differs from the others in {', '.join(differing)}; "
                "combine runs of one model, battery, engine, dtype, device and seed only"
            )
    first = next(iter(children.values()))
    hashes = {condition: config.hash for condition, config in children.items()}
    return f"{first.model}-{first.battery}_{digest(hashes)[:HASH_DIGITS]}"
