"""The fixtures of the claims, made for a model of this folder by the lab's own instruments."""

from collections.abc import Callable
from functools import cached_property
from inspect import signature
from pathlib import Path

from fixtures.calibration.benches import TrialBench
from fixtures.calibration.trials import Given
from tests.benches import CORPORA
from tests.known_models.hand_set import save
from tests.known_models.models import MODELS, TRIO, KnownModel
from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.emergence import TrainingTrajectory, training_trajectory
from tinyablation.analysis.head_vocabulary import HeadVocabulary
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head
from tinyablation.measurement.bench import Bench
from tinyablation.models.registry import Checkpoint, ModelEntry
from tinyablation.plugin.head_fixtures import (
    Reference,
    Steered,
    read_direction,
    read_head_vocabulary,
    steer,
)
from tinyablation.verdicts.listener import Heard, hear

# What claims may ask about a condition before it is known to be valid for the model.
BEFORE_THE_GATE = {"model", "unhooked", "counting", "validity"}
# The conditions that a claim about several is asked under: those these models know of.
KNOWN = ("facts", "counterfactual")


class KnownBench(TrialBench):
    """A bench that measures into memory, as do those of the model's checkpoints.

    Readings are stored, because what is steered along is named after the reading it comes from.
    """

    reading = Bench.reading  # type: ignore[assignment]

    def like(self, entry: ModelEntry) -> "KnownBench":
        return KnownBench(entry, self.setup.corpora, self.store.root)


class Measured(Given):
    """One model under one condition: what a claim may ask of it, by the fixture's name."""

    bench: KnownBench

    def __init__(
        self,
        bench: KnownBench,
        condition: str,
        reference: Callable[[], KnownBench] | None = None,
    ) -> None:
        super().__init__(bench, condition, TRIO)
        self._reference = reference

    def hear(self, claim: Callable[..., None]) -> Heard:
        """The claim's own verdict on this model, which its condition must be valid for."""
        wanted = [name for name in signature(claim).parameters if name != "judge"]
        for name in wanted:
            assert name in dir(self), (
                f"{claim.__name__} asks for {name!r}: give {type(self).__name__} in {__file__} a "
                "property of that name, made as the fixture of tinyablation/plugin is"
            )
        if not set(wanted) <= BEFORE_THE_GATE:
            self.require_valid(self.bench)
        return hear(claim, *(getattr(self, name) for name in wanted))

    def require_valid(self, bench: KnownBench) -> None:
        reason = bench.gate.reason_blocked(self.condition)
        assert reason is None, f"{self.condition} is not valid for {bench.entry.id}: {reason}"

    @property
    def leader(self) -> Head:
        return self.subject.suppressor

    @property
    def valid_conditions(self) -> list[str]:
        found = [name for name in KNOWN if self.bench.gate.reason_blocked(name) is None]
        assert found == list(KNOWN), f"only {found} are valid for {self.bench.entry.id}"
        return found

    @property
    def sweeps(self) -> list[Sweep]:
        return [self.bench.findings.sweep(name) for name in self.valid_conditions]

    @property
    def every_subsets(self) -> list[Coalitions]:
        return [self.bench.findings.subsets(name, self.trio) for name in self.valid_conditions]

    @property
    def binding(self) -> Sweep:
        return self.sweep

    @cached_property
    def ov(self) -> HeadVocabulary:
        return read_head_vocabulary(self.bench, self.condition, self.leader, CONFIRMATION)

    @property
    def reference(self) -> Reference:
        assert self._reference is not None, f"{self.bench.entry.id} is compared with no other model"
        there = self._reference()
        self.require_valid(there)
        read = read_head_vocabulary(there, self.condition, self.leader, CONFIRMATION)
        return Reference(read, self.leader)

    @property
    def steered(self) -> Steered:
        source = read_direction(self.bench, self.leader)
        responses = {name: steer(self.bench, name, self.leader) for name in self.valid_conditions}
        norm = float(source.document()["vector_norm"])
        return Steered(responses, self.leader, norm, {}, (source.name,))

    @property
    def training(self) -> TrainingTrajectory:
        return training_trajectory(self.bench, self.leader, self.condition)


class Shelf:
    """The models, built when first asked for, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._benches: dict[str, KnownBench] = {}

    def bench(self, name: str) -> KnownBench:
        if name not in self._benches:
            self._benches[name] = self.bench_of(name, MODELS[name])
        return self._benches[name]

    def bench_of(self, name: str, known: KnownModel) -> KnownBench:
        """A bench of any model; its checkpoints end with itself."""
        place = self.folder / name
        sources = [
            save(design, place / str(step))
            for step, design in enumerate([*known.earlier, known.design])
        ]
        steps = tuple(Checkpoint(step=step, source=at) for step, at in enumerate(sources))
        entry = ModelEntry(
            id=f"known-{name}",
            title=name,
            source=sources[-1],
            family="llama",
            variant="plain",
            bos=True,
            checkpoints=steps if known.earlier else (),
        )
        return KnownBench(entry, CORPORA, place / "runs")

    def measured(self, name: str, condition: str) -> Measured:
        other = MODELS[name].reference
        return Measured(self.bench(name), condition, (lambda: self.bench(other)) if other else None)
