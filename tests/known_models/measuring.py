"""The fixtures of the claims, made for a model of this folder by the lab's own instruments."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from fixtures.calibration.trials import TrialBench
from tests.benches import CORPORA
from tests.known_models.hand_set import Design, save
from tests.known_models.models import MODELS, NAMED, KnownModel
from tinyablation.analysis.emergence import training_trajectory
from tinyablation.analysis.step_norms import stepnorms
from tinyablation.corpora.examples import BINDING, CONFIRMATION
from tinyablation.interventions.head_sets import TrioZeroed
from tinyablation.measurement.validity import blocks
from tinyablation.models.registry import Checkpoint, ModelEntry
from tinyablation.plugin.head_fixtures import (
    Reference,
    Steered,
    read_direction,
    read_head_vocabulary,
    steer,
)
from tinyablation.verdicts.listener import Heard, hear
from tinyablation.verdicts.registered import Subject


# The conditions that a claim about several conditions is asked under: those these models know of.
KNOWN = ("facts", "counterfactual")


class KnownBench(TrialBench):
    """A bench that measures into memory, as do those of the model's checkpoints."""

    def like(self, entry: ModelEntry) -> "KnownBench":
        return KnownBench(entry, self.setup.corpora, self.store.root)


class Measured:
    """One model under one condition, and what a claim may ask of it, by the fixture's name.

    As in a session, the condition must be valid for the model before anything is measured of it:
    each fixture that is behind the gate asks for it.
    """

    def __init__(
        self, bench: KnownBench, condition: str, others: Callable[[str], KnownBench], known: KnownModel
    ) -> None:
        self.bench, self.condition, self.others, self.known = bench, condition, others, known
        self.findings = bench.findings

    @property
    def subject(self) -> Subject:
        return NAMED

    @property
    def trio(self) -> Any:
        return NAMED.trio

    @property
    def model(self) -> KnownBench:
        return self.bench

    @property
    def unhooked(self) -> Any:
        return self.bench.gate.unhooked(self.condition)

    @property
    def counting(self) -> Any:
        return self.bench.gate.counting(self.condition)

    @property
    def validity(self) -> Any:
        return self.bench.gate.judged(self.condition)

    @property
    def valid(self) -> str:
        reason = self.bench.gate.reason_blocked(self.condition)
        assert reason is None, f"{self.condition} is not valid for {self.bench.entry.id}: {reason}"
        return self.condition

    @property
    def valid_conditions(self) -> list[str]:
        """Of those that these models know anything about; the rest are not worth their time."""
        return [name for name in KNOWN if self.bench.gate.reason_blocked(name) is None]

    @property
    def sweep(self) -> Any:
        return self.findings.sweep(self.valid)

    corrected_sweep = sweep

    @property
    def methods(self) -> Any:
        return self.findings.methods(self.valid)

    @property
    def sweeps(self) -> Any:
        found = self.valid_conditions
        assert len(found) > 1, f"only {found} are valid for {self.bench.entry.id}"
        return [self.findings.sweep(name) for name in found]

    @property
    def subsets(self) -> Any:
        return self.findings.subsets(self.valid, NAMED.trio)

    @property
    def coalitions(self) -> Any:
        return self.findings.coalitions(self.valid, NAMED.trio)

    @property
    def zeroed_trio(self) -> Any:
        from tinyablation.analysis.coalitions import Coalitions

        found = self.findings.effects(self.valid, TrioZeroed(NAMED.trio))
        return Coalitions(
            found.model, found.condition, found.table, found.noise_floor, found.seed, found.runs
        )

    @property
    def stepnorms(self) -> Any:
        return stepnorms(self.bench, self.valid, NAMED.trio)

    @property
    def binding(self) -> Any:
        assert not blocks(self.bench.gate.judged(BINDING)), f"{self.bench.entry.id} does not bind"
        return self.findings.sweep(BINDING)

    @property
    def paths(self) -> Any:
        return self.findings.paths(self.valid, NAMED.suppressor)

    @property
    def ov(self) -> Any:
        return read_head_vocabulary(self.bench, self.valid, NAMED.suppressor, CONFIRMATION)

    @property
    def reference(self) -> Reference:
        there = self.others(self.known.reference)
        assert there.gate.reason_blocked(self.condition) is None
        head = NAMED.suppressor
        return Reference(read_head_vocabulary(there, self.condition, head, CONFIRMATION), head)

    @property
    def steered(self) -> Steered:
        bench, head = self.bench, NAMED.suppressor
        names = self.valid_conditions
        assert "facts" in names and len(names) > 1, f"only {names} are valid for {bench.entry.id}"
        source = read_direction(bench, head)
        responses = {name: steer(bench, name, head) for name in names}
        norm = float(source.document()["vector_norm"])
        return Steered(responses, head, norm, {}, (source.name,))

    @property
    def training(self) -> Any:
        return training_trajectory(self.bench, NAMED.suppressor, self.valid)

    def hear(self, claim: Callable[..., None]) -> Heard:
        """The claim's own verdict on this model."""
        wanted = [name for name in signature(claim).parameters if name != "judge"]
        for name in wanted:
            assert hasattr(type(self), name), (
                f"{claim.__name__} asks for {name!r}: give {type(self).__name__} in {__file__} a "
                "property of that name, made as the fixture of tinyablation/plugin is"
            )
        return hear(claim, *(getattr(self, name) for name in wanted))


class Shelf:
    """The models, built when first asked for, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._benches: dict[str, KnownBench] = {}

    def bench(self, name: str) -> KnownBench:
        if name not in self._benches:
            known = MODELS[name]
            self._benches[name] = self.bench_of(name, known.design, known.earlier)
        return self._benches[name]

    def bench_of(
        self, name: str, design: Design, earlier: tuple[Design, ...] = ()
    ) -> KnownBench:
        """A bench of any design."""
        place = self.folder / name
        steps = [
            Checkpoint(step=step, source=save(one, place / f"step{step}"))
            for step, one in enumerate(earlier)
        ]
        source = save(design, place / "model")
        if steps:
            steps.append(Checkpoint(step=len(steps), source=source))
        entry = ModelEntry(
            id=f"known-{name}",
            title=name,
            source=source,
            family="llama",
            variant="plain",
            bos=True,
            checkpoints=tuple(steps),
        )
        return KnownBench(entry, CORPORA, place / "runs")

    def measured(self, name: str, condition: str) -> Measured:
        return Measured(self.bench(name), condition, self.bench, MODELS[name])
