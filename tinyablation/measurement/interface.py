"""Interfaces of a bench and of remote measurement.

The parts of a bench are written against them, so that none of them imports bench.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tinyablation.interventions.batteries import EVERYTHING, Sample
from tinyablation.measurement.held_model import HeldModel

if TYPE_CHECKING:
    from torch import Tensor

    from tinyablation.corpora.examples import Corpus, Example, Split
    from tinyablation.corpora.library import Library
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.document import Computed
    from tinyablation.interventions.batteries import AnyBattery, Side
    from tinyablation.interventions.interventions import AblationMethod
    from tinyablation.measurement.setup import Setup
    from tinyablation.runs.address import RunConfig
    from tinyablation.runs.documents import Reading
    from tinyablation.runs.store import Run, RunStore


class Measures(HeldModel, ABC):
    """A bench: one model, its corpora, and the store of its measurements."""

    setup: Setup
    battery: str
    method: AblationMethod
    library: Library
    store: RunStore

    @property
    def seed(self) -> int:
        return self.setup.seed

    @property
    def protocol(self) -> str:
        return self.setup.protocol

    @property
    def share(self) -> float:
        return self.setup.share

    @property
    def per_relation(self) -> int:
        return self.setup.per_relation

    @abstractmethod
    def corpus(self, condition: str) -> tuple[Corpus, Split]:
        """The examples of a condition and their split, for the model's tokenizer (see library)."""

    @abstractmethod
    def rows(
        self, condition: str, sample: Sample = EVERYTHING, *, aligned: bool = False
    ) -> dict[int, str]:
        """Corpus row -> split of the rows that a sample measures, in order (Sampling.rows)."""

    @abstractmethod
    def counting(self, condition: str, sample: Sample, *, aligned: bool = False) -> dict[int, str]:
        """Corpus row -> split of all rows that a sample is drawn from (Sampling.counting)."""

    @abstractmethod
    def pool(self, condition: str, sample: Sample = EVERYTHING) -> list[Example]:
        """All examples that means and donors of a sample of the condition may come from."""

    @abstractmethod
    def chosen(self, condition: str, sample: Sample, rows: Iterable[int]) -> list[Example]:
        """The examples of these rows, with the corrupt prompts of the sample (Sampling.paired)."""

    @abstractmethod
    def examples(self, condition: str, split: str | None = None) -> list[Example]:
        """The examples of the condition that count for the model, in row order."""

    @abstractmethod
    def prompts(
        self, condition: str, split: str | None = None, side: Side = "clean"
    ) -> list[Prompt]:
        """The prompts of one side as the engine takes them, in row order."""

    @abstractmethod
    def config(self, condition: str, battery_name: str, sample: Sample = EVERYTHING) -> RunConfig:
        """The address of a measurement of this model under one condition."""

    @abstractmethod
    def run(
        self, condition: str, wanted: str | AnyBattery, *, directions: Directions | None = None
    ) -> Run:
        """The run of one battery under one condition: reused, continued or measured now.

        directions: makes the vectors that the battery steers along; called only when measuring.
        """

    @abstractmethod
    def ahead(self, condition: str, *wanted: str | AnyBattery) -> None:
        """Start measuring these batteries in parallel, before each is requested and waited for.

        Does nothing if this process measures itself.
        """

    @abstractmethod
    def advance(
        self,
        condition: str,
        wanted: AnyBattery,
        shards: Sequence[str],
        *,
        directions: Directions | None = None,
    ) -> dict[str, float]:
        """Compute only the shards of these keys, and finish the run if they were the last.

        Returns the seconds of each that was computed here (see RunStore.advance).
        """

    @abstractmethod
    def config_without_corpus(self, name: str) -> RunConfig:
        """The address of a reading of this name that uses no corpus."""

    @abstractmethod
    def reading(self, condition: str, wanted: AnyReading) -> Reading:
        """A measurement whose result is a document, at its address: reused, or computed now."""

    @abstractmethod
    def reading_without_corpus(self, wanted: CorpusFree) -> Reading:
        """The same of a reading that uses no corpus."""


Directions = Callable[[Measures], "Mapping[str, Tensor]"]


class AnyReading(Protocol):
    """What a bench needs of a reading: its name in the address, its sample, its computation."""

    @property
    def sample(self) -> Sample: ...
    def name(self, bench: Measures) -> str: ...
    def compute(self, bench: Measures, condition: str) -> Computed: ...


class CorpusFree(Protocol):
    """What a bench needs of a reading that uses no corpus.

    The name has all that the figures depend on, beside the model and the seed: sizes, versions, and
    a digest of inputs that are given.
    """

    def name(self, bench: Measures) -> str: ...
    def compute(self, bench: Measures) -> Computed: ...


class Elsewhere(Protocol):
    """Measures what is missing in a store on behalf of this process (dispatch.py)."""

    def is_under_way(self, config: RunConfig) -> bool:
        """Whether it was begun and has not been waited for yet."""

    def begin(
        self, bench: Measures, kind: Literal["run", "reading"], config: RunConfig, **parts: Any
    ) -> bool:
        """Begin it; returns whether there is something to wait for."""

    def complete(self, bench: Measures, config: RunConfig) -> None:
        """Wait until it is in the store."""
