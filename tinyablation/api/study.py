"""One model on one set of prompts: the bench that measures it, and whether it can be judged."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinyablation.analysis.findings import Findings
from tinyablation.api.prompts import Prompts, refuse_misleading
from tinyablation.api.verdict import Verdict
from tinyablation.measurement.bench import Bench
from tinyablation.verdicts.verdicts import Verdict as Judged
from tinyablation.verdicts.verdicts import blocked

if TYPE_CHECKING:
    from tinyablation.engine.engine import Engine
    from tinyablation.measurement.held_model import HeldModel
    from tinyablation.measurement.validity import Tables
    from tinyablation.models.loading import LoadedModel
    from tinyablation.runs.derived import Circumstances


class PromptsBench(Bench):
    """A bench for prompts of one's own, with the model of another bench in memory.

    Each set of prompts gets one, so that two sets of one name never share what was read of either.
    """

    def __init__(self, holder: Bench, prompts: Prompts) -> None:
        super().__init__(
            holder.setup,
            holder.store,
            own={prompts.name: prompts.own},
            threads=holder.threads,
            progress=holder.progress,
        )
        self.holder = holder
        self.__dict__["facts"] = holder.facts

    @property
    def model(self) -> LoadedModel:
        return self.holder.model

    @property
    def engine(self) -> Engine:
        return self.holder.engine

    @property
    def plain_hooks(self) -> Any:
        return self.holder.plain_hooks

    @property
    def bridge_hooks(self) -> Any:
        return self.holder.bridge_hooks

    @property
    def reference(self) -> HeldModel:
        return self.holder.reference

    def require_unchanged(self, *, fresh: bool = False) -> None:
        self.holder.require_unchanged(fresh=fresh)

    def circumstances(self) -> Circumstances:
        return self.holder.circumstances()

    def yield_device(self) -> None:
        self.holder.yield_device()


class Study:
    """One model under one condition, or on prompts of one's own."""

    def __init__(self, holder: Bench, given: str | Prompts) -> None:
        self.prompts = None if isinstance(given, str) else given
        self.condition = given if isinstance(given, str) else given.name
        self.bench = holder if isinstance(given, str) else PromptsBench(holder, given)
        self.findings = Findings(self.bench)
        if self.prompts is not None:
            facts, entry = self.bench.facts, self.bench.entry
            defects = self.bench.library.defects(facts.folder, self.condition, entry.id)
            refuse_misleading(self.prompts, defects)

    @property
    def model(self) -> str:
        return self.bench.entry.id

    @property
    def title(self) -> str:
        return f"{self.model}, {self.condition}"

    @cached_property
    def tables(self) -> Tables:
        """The rows of the unhooked model; without corrupt prompts, of the clean ones alone."""
        from tinyablation.interventions.batteries import BASELINE
        from tinyablation.measurement.validity import Tables

        if self.is_paired:
            return self.bench.gate.unhooked(self.condition)
        run = self.bench.run(self.condition, BASELINE)
        clean = run.table().sort_values("example").reset_index(drop=True)
        unknown = clean.assign(logit_diff=float("nan"))  # nothing may be read of a corrupt side
        return Tables(clean, unknown, None, run.noise_floor(), (run.name,))

    @property
    def is_paired(self) -> bool:
        """Whether its prompts have corrupt counterparts."""
        return self.prompts is None or self.prompts.has_corrupt

    @cached_property
    def validity(self) -> Judged:
        """Whether the model answers: by its gate, or without corrupt prompts by accuracy."""
        from tinyablation.measurement.validity import is_competent

        if self.is_paired:
            return self.bench.gate.judged(self.condition)
        return is_competent(self.tables)

    @property
    def reason_blocked(self) -> str | None:
        """Why nothing can be judged by these prompts; None if it can."""
        if self.is_paired:
            return self.bench.gate.reason_blocked(self.condition)
        return self.validity.reason if self.validity.status == "refuted" else None

    def verdict(self, judged: Judged | None, subject: str, split: str) -> Verdict:
        """The verdict with what it is about; judged None: it is blocked by the prompts."""
        if judged is None:
            judged = blocked(
                f"{self.condition} is not valid for {self.model}: {self.reason_blocked}"
            )
        about = {"model": self.model, "condition": self.condition}
        return Verdict.of(judged, **about, subject=subject, split=split)
