"""Heads zeroed one by one, and sets of heads zeroed together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinyablation.analysis.choice import Choice
from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.sweeps import Sweep as Effects
from tinyablation.api.errors import ApiError
from tinyablation.api.heads import head_of, names, set_of
from tinyablation.api.study import Study
from tinyablation.api.verdict import (
    Alternative,
    Verdict,
    check_alternative,
    html_table,
    judge_effect,
    split_of,
)
from tinyablation.heads import Head
from tinyablation.records.splits import BOTH

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from tinyablation.statistics.intervals import Estimate

SHOWN = 10  # rows of what a notebook shows unasked


@dataclass(frozen=True)
class Sweep:
    """Every head of a model zeroed alone on the same prompts.

    effects: the library's own object, which claims get as the fixture `sweep`.
    """

    study: Study
    effects: Effects

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that were zeroed, in order."""
        return self.effects.heads

    @property
    def rows(self) -> pandas.DataFrame:
        """One row per intervention and prompt, the unhooked model included: see docs/api.md."""
        return self.effects.table

    @property
    def clean(self) -> float:
        """The mean LD of the unhooked model, in logits."""
        return float(self.effects.baseline()["logit_diff"].mean())

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per head, [n_heads]: head ("L0H7"), layer, number, delta, low, high, p_greater.

        delta: the mean of LD ablated - LD clean over all prompts, in logits, with its 95 % interval
        over clusters; above 0 the head suppresses the right answer. p_greater: of delta > 0,
        corrected over the heads measured (max-T). The intervals are of each head alone: that of the
        largest of many is no verdict on it (see `verdict`).
        """
        import pandas

        found = self.effects
        estimates = [found.effect(head, split=BOTH) for head in self.heads]
        return pandas.DataFrame(
            {
                "head": [head.name for head in self.heads],
                "layer": [head.layer for head in self.heads],
                "number": [head.head for head in self.heads],
                "delta": [each.estimate for each in estimates],
                "low": [each.low for each in estimates],
                "high": [each.high for each in estimates],
                "p_greater": [found.p_corrected(head, split=BOTH) for head in self.heads],
            }
        )

    def top(self, n: int = SHOWN, *, alternative: Alternative = "greater") -> pandas.DataFrame:
        """The n heads whose zeroing raises LD most ("less": lowers it), as rows of `table`."""
        if n < 1:
            raise ApiError(f"top({n}): give 1 or more")
        check_alternative(alternative)
        rows = self.table.sort_values("delta", ascending=alternative == "less", kind="stable")
        return rows.head(n).reset_index(drop=True)

    def verdict(
        self, head: Any = None, *, alternative: Alternative = "greater", split: str | None = None
    ) -> Verdict:
        """Whether a head suppresses the right answer ("less": whether the answer needs it).

        head: named beforehand ("L0H7"), and judged by all prompts; None: the head that leads on
        each half of the prompts, judged by the other half, at 98 %. split: "discovery",
        "confirmation" or "both" (the default): the prompts that judge. Supported if the interval
        of Delta lies above 5 % of the clean LD, .01 logits and the noise. Blocked if the model does
        not answer these prompts (see `check`).
        """
        check_alternative(alternative)
        judging = split_of(split)
        found = self.effects
        who: Head | Choice
        if head is None:
            who = found.choose(self.heads, split=judging, alternative=alternative)
            subject = who.head.name
        else:
            who = self._measured(head)
            subject = who.name
        judged = None
        if self.study.reason_blocked is None:
            what = f"zero-ablating {subject}" if head is not None else f"zero-ablating {_told(who)}"
            judged = judge_effect(found, who, what, split=judging, alternative=alternative)
        return self.study.verdict(judged, subject, judging)

    def plot(self) -> Figure:
        """A heatmap of the mean Delta in logits, layers down, heads across; red: suppressors."""
        import numpy as np

        from tinyablation.api.plots import heatmap

        facts = self.study.bench.facts
        values = np.full((facts.n_layers, facts.n_heads), np.nan)
        for head, delta in self.effects.mean_deltas(BOTH).items():
            values[head] = delta
        return heatmap(values, self.study.title)

    def _measured(self, head: Any) -> Head:
        facts = self.study.bench.facts
        wanted = head_of(head, facts.n_layers, facts.n_heads)
        if wanted not in self.heads:
            raise ApiError(f"{wanted.name} is not in a layer that this sweep measured")
        return wanted

    def __repr__(self) -> str:
        return f"Sweep({self.study.title}: {len(self.heads)} heads zeroed alone)"

    def _repr_html_(self) -> str:
        top = self.top()
        columns = ("head", "delta", "low", "high", "p_greater")
        caption = f"{self.study.title}: the {len(top)} heads whose zeroing raises LD most, logits"
        return html_table(caption, columns, top[list(columns)].to_numpy().tolist())


@dataclass(frozen=True)
class HeadSets:
    """Sets of heads of a model zeroed together on the same prompts, and each head alone.

    effects: the library's own object, which claims get as the fixture `subsets`.
    """

    study: Study
    effects: Coalitions
    sets: tuple[tuple[Head, ...], ...]

    @property
    def rows(self) -> pandas.DataFrame:
        """One row per intervention and prompt, the unhooked model included: see docs/api.md."""
        return self.effects.table

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per set that was named: heads, size, delta, low, high, alone, cooperation, ...

        delta: the mean of LD ablated - LD clean over all prompts, in logits, with its 95 % interval
        over clusters; alone: the sum of its heads' own deltas; cooperation: delta minus that sum,
        with `cooperation_low` and `cooperation_high` (NaN for one head).
        """
        import pandas

        nothing = float("nan")
        rows = []
        for heads in self.sets:
            own = self.effects.effect(heads, split=BOTH)
            alone = sum(self.effects.mean([head], BOTH) for head in heads)
            row = {"heads": names(heads), "size": len(heads)}
            row |= {"delta": own.estimate, "low": own.low, "high": own.high, "alone": alone}
            more = (nothing,) * 3
            if len(heads) > 1:
                more = self.effects.cooperation(heads, split=BOTH)[:3]
            ends = ("cooperation", "cooperation_low", "cooperation_high")
            rows.append(row | dict(zip(ends, more, strict=True)))
        return pandas.DataFrame(rows)

    def verdict(
        self, heads: Any = None, *, alternative: Alternative = "greater", split: str | None = None
    ) -> Verdict:
        """Whether the set suppresses the right answer ("less": whether the answer needs it).

        heads: a set that was named, or one of its heads (default: the first set). Judged as a head
        of a sweep that was named beforehand, by all prompts or those of `split`.
        """
        check_alternative(alternative)
        judging = split_of(split)
        facts = self.study.bench.facts
        wanted = self.sets[0] if heads is None else set_of(heads, facts.n_layers, facts.n_heads)
        if wanted not in self.effects.sets:
            raise ApiError(f"{names(wanted)}: ablate() did not measure this set; name it there")
        subject = names(wanted)
        judged = None
        if self.study.reason_blocked is None:
            what = f"zero-ablating {subject}"
            judged = judge_effect(
                self.effects, wanted, what, split=judging, alternative=alternative
            )
        return self.study.verdict(judged, subject, judging)

    def plot(self) -> Figure:
        """A forest plot: a line a set, its Delta with its interval, in logits."""
        from tinyablation.api.plots import forest

        lines: list[tuple[str, Estimate | None, str]] = [
            (names(heads), self.effects.effect(heads, split=BOTH), "") for heads in self.sets
        ]
        return forest(lines, self.study.title, "logits", self.effects.floor(BOTH))

    def __repr__(self) -> str:
        return f"HeadSets({self.study.title}: {'; '.join(names(heads) for heads in self.sets)})"

    def _repr_html_(self) -> str:
        columns = ("heads", "delta", "low", "high", "alone", "cooperation")
        caption = f"{self.study.title}: heads zeroed together, logits"
        return html_table(caption, columns, self.table[list(columns)].to_numpy().tolist())


def _told(who: Head | Choice) -> str:
    """ "L0H7", or "L0H7 (L0H5 on discovery)" where the halves choose different heads."""
    if not isinstance(who, Choice):
        return who.name
    others = {split: head for split, head in who.heads.items() if head != who.head}
    told = [f"{head.name} on {split}" for split, head in others.items()]
    return who.head.name + (f" ({', '.join(told)})" if told else "")
