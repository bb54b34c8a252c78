"""A sweep over the heads chosen by a screening (screening.py), and the limits of its verdicts.

Figures of measured heads are exact, as in any sweep: effects, leads, ranks. A p is corrected over
the measured heads, which were chosen without the confirmation split. Statements about ALL heads
depend on the claim:

    "some head does"     supported is valid: the head was measured. Refuted is valid only if no
                         unmeasured head can have the effect.
    "no other head does" refuted is valid: the other head was measured. Supported, or present, is
                         valid only if no unmeasured head can do as well.

"Can" refers to the exact bound from the random sample. If the bound allows one such head, the
verdict is inconclusive and says so. With M heads drawn and none found the bound is some 3 / M of
the rest, so a claim that no head does needs a full sweep, or a sample of nearly all heads. Claims
about a fully measured layer, and about named heads, are as in a full sweep.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tinyablation.analysis.choice import Choice
from tinyablation.analysis.effects import EffectsError
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import BOTH, CONFIRMATION
from tinyablation.heads import Head, head_name
from tinyablation.measurement.screening import (
    CONFIDENCE,
    Plan,
)
from tinyablation.records.trust import Screened, Unmeasured
from tinyablation.statistics.finite_population import most_in_population
from tinyablation.statistics.intervals import Alternative
from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.verdicts import Verdict


@dataclass(frozen=True)
class ScreenedSweep(Sweep):
    """The heads of a plan, ablated on the examples of one condition."""

    plan: Plan | None = None

    @property
    def _plan(self) -> Plan:
        assert self.plan is not None  # a dataclass may not have a field without default here
        return self.plan

    @property
    def n_layers(self) -> int:
        return self._plan.n_layers

    @cached_property
    def screened(self) -> Screened:
        """The screening as recorded."""
        plan, floor = self._plan, self.floor()
        by_layer = sum(head[0] in plan.whole for head in plan.measured)
        return Screened(
            asked=plan.asked,
            condition=self.condition,
            n_heads=len(plan.every),
            measured=len(plan.measured),
            by_layer=by_layer,
            by_score=len(plan.top),
            by_chance=len(plan.sample),
            confidence=CONFIDENCE,
            floor=float(floor),
            raising=self.unmeasured(float(floor)),
            lowering=self.unmeasured(-float(floor), alternative="less"),
            agreement=self._agreement(),
        )

    def unmeasured(
        self,
        bound: float,
        *,
        alternative: Alternative = "greater",
        layers: Collection[int] | None = None,
        split: str = CONFIRMATION,
        column: str = "logit_diff",
    ) -> Unmeasured:
        """How many unmeasured heads may have a mean Delta at or beyond the bound.

        layers: only among these; a random sample of the rest is also a random sample of any part of
        it that was named beforehand.
        """
        plan = self._plan

        def within(heads: tuple[Head, ...]) -> list[Head]:
            return [head for head in heads if layers is None or head[0] in layers]

        rest, sample = within(plan.rest), within(plan.sample)
        means = self.mean_deltas(split, column=column)
        sign = -1 if alternative == "less" else 1
        found = sum(sign * (means[head] - bound) >= 0 for head in sample)
        most = most_in_population(len(rest), len(sample), found)
        return Unmeasured(
            n=len(rest) - len(sample), sampled=len(sample), found=found, most=most - found
        )

    def choose(
        self,
        among: Sequence[Head],
        *,
        split: str = BOTH,
        column: str = "logit_diff",
        alternative: Alternative = "greater",
    ) -> Choice:
        """As Sweep.choose, but only the confirmation split judges heads of the highest scores.

        The screening chose them by the discovery split.
        """
        if not set(among).isdisjoint(self._plan.top):
            split = CONFIRMATION
        return super().choose(among, split=split, column=column, alternative=alternative)

    def for_every_head(
        self,
        verdict: Verdict,
        who: Head | Choice,
        *,
        split: str = CONFIRMATION,
        layers: Collection[int] | None = None,
    ) -> Verdict:
        if verdict.status not in ("supported", "present"):
            return verdict
        bound = float(self.changes(who, split).mean())
        hidden = self.unmeasured(bound, layers=layers, split=split)
        name = who.name if isinstance(who, Choice) else head_name(who)
        return _allowing_for(verdict, hidden, f"do as well as {name}")

    def for_some_head(
        self,
        verdict: Verdict,
        each: Mapping[Head, Verdict],
        bound: float,
        *,
        alternative: Alternative = "greater",
        split: str = CONFIRMATION,
        layers: Collection[int] | None = None,
        column: str = "logit_diff",
    ) -> Verdict:
        verdict = super().for_some_head(verdict, each, bound, alternative=alternative)
        if verdict.status != "refuted":
            return verdict
        hidden = self.unmeasured(
            float(bound), alternative=alternative, layers=layers, split=split, column=column
        )
        return _allowing_for(verdict, hidden, f"do what is asked, beyond {figure(float(bound))}")

    def exceedance(self, head: Head, *, split: str = CONFIRMATION) -> float:
        """(k + 1) / (n + 1) over all other heads of the model, at worst for the unmeasured ones.

        k: the measured heads that do as well, plus as many of the others as the bound allows.
        """
        means = self.mean_deltas(split)
        measured = sum(means[other] >= means[head] for other in self.heads if other != head)
        hidden = self.unmeasured(means[head], split=split)
        return (measured + hidden.most + 1) / len(self._plan.every)

    def heatmap(self, split: str = CONFIRMATION) -> dict[str, object]:
        """Mean Delta by layer and head, None for heads that were not measured."""
        means = self.mean_deltas(split)
        values = [
            [means.get(Head(layer, head)) for head in range(len(row))]
            for layer, row in enumerate(self._plan.scores)
        ]
        title = f"mean change of LD, {split} split, logits; empty: not measured (screened)"
        return {"values": values, "title": title}

    def _agreement(self) -> float | None:
        """Spearman's correlation of score and exact effect over the randomly drawn heads.

        Heads chosen by score would overstate it. None if either is constant.
        """
        from scipy.stats import spearmanr

        plan, means = self._plan, self.mean_deltas(CONFIRMATION)
        scores = [plan.scores[layer][head] for layer, head in plan.sample]
        effects = [means[head] for head in plan.sample]
        if len(set(scores)) < 3 or len(set(effects)) < 3:
            return None
        return float(spearmanr(scores, effects).statistic)

    def _require(self, head: Head) -> None:
        if head in self._plan.every and head not in self.heads:
            raise EffectsError(
                f"{self.model}, {self.condition}: head {head_name(head)} was not measured, for the "
                f"sweep was screened ({self._plan.asked}); name it in subjects.toml, or run "
                "without --screen"
            )
        super()._require(head)


def _allowing_for(verdict: Verdict, hidden: Unmeasured, what: str) -> Verdict:
    """The verdict, made inconclusive if an unmeasured head could change it."""
    if not hidden.most:
        return verdict
    return replace(
        verdict,
        status="inconclusive",
        reason=(
            f"{verdict.reason}; but the sweep was screened: of {hidden.n} heads not measured up to "
            f"{hidden.most} may {what} ({CONFIDENCE:.0%} bound: {hidden.found} of the "
            f"{hidden.sampled} drawn from them by chance do), so only a full sweep can say "
            f"{verdict.status}"
        ),
        p_value=None,
    )
