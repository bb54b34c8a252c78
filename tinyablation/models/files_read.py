"""The files that a model in memory was read from: whether they are, and stay, what was hashed.

A model is described (and hashed) first and loaded later, by readers that open files by their names.
So after loading every byte is hashed again, and the files' stamps must be those from before: a file
that was written, renamed or replaced between hashing and loading, or put back in between, is seen.
Weights on a CPU stay mapped, so a later write changes the model in memory: the stamps are compared
after every shard, and the bytes again when a run is finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tinyablation.models.checkpoint import (
    CONFIG,
    config_hash,
    read_config,
    refuse_adapter,
    weight_files,
)
from tinyablation.models.file_hashes import Watch, changed, weights_hash
from tinyablation.models.model_facts import ModelFacts
from tinyablation.models.tokenizer_state import inputs, tokenizer_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class FilesRead:
    """The files of one model: `expected` is the hash of the weights in `folder`."""

    name: str
    facts: ModelFacts
    folder: Path
    expected: str
    weights: Watch
    others: Watch

    @classmethod
    def before_loading(cls, name: str, facts: ModelFacts, folder: Path) -> Self:
        """Watch the files of `facts.folder`, and the weights in `folder`, from now on.

        folder: facts.folder, or that of a copy (weight_copies). Raises ModelChanged if a file is
        missing, and LoadingError as weight_files does.
        """
        expected = facts.weight_hash
        if folder != facts.folder:
            from tinyablation.models.weight_copies import copied_hash

            expected = copied_hash(folder)
        weights = Watch.over(name, weight_files(folder, name))
        return cls(name, facts, folder, expected, weights, cls._others(name, facts, folder))

    @staticmethod
    def _others(name: str, facts: ModelFacts, folder: Path) -> Watch:
        return Watch.over(name, (folder / CONFIG, *inputs(facts.folder, name)))

    def require_loaded(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Raise ModelChanged unless what was just loaded is what was described."""
        if self._others(self.name, self.facts, self.folder).stamps != self.others.stamps:
            self.others.require_unchanged()
            raise changed(self.name, self.facts.folder)
        self.require_unchanged(fresh=True)
        refuse_adapter(self.folder, self.name)
        if config_hash(read_config(self.folder, self.name)) != self.facts.config_hash:
            raise changed(self.name, self.folder / CONFIG)
        found = tokenizer_hash(self.facts.folder, self.name, tokenizer)
        if found != self.facts.tokenizer_hash:
            raise changed(self.name, self.facts.folder)
        self.others.require_unchanged()  # not even while they were hashed

    def require_unchanged(self, *, fresh: bool = False) -> None:
        """Raise ModelChanged if a weight file was written, renamed or replaced.

        fresh: hash every byte again, which also sees writes through a mapping on a file system that
        does not note their time (tmpfs).
        """
        files: Sequence[Path] = list(self.weights.stamps)
        self.weights.require_unchanged()
        if fresh:
            if weight_files(self.folder, self.name) != files:
                raise changed(self.name, self.folder)
            if weights_hash(files, fresh=True) != self.expected:
                raise changed(self.name, files[0] if len(files) == 1 else self.folder)
            self.weights.require_unchanged()
