"""Whether a model answers prompts: what is found before anything is ablated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tinyablation.api.study import Study
from tinyablation.api.verdict import Verdict, html_table
from tinyablation.corpora.defects import listed
from tinyablation.records.splits import BOTH

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Check:
    """The unhooked model on a set of prompts."""

    study: Study

    @property
    def ok(self) -> bool:
        """Whether effects can be judged by these prompts: it is not shown that the model fails."""
        return self.reason is None

    @property
    def reason(self) -> str | None:
        """Why effects cannot be judged by these prompts; None if they can."""
        return self.study.reason_blocked

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the model tells clean from corrupt prompts, not by a bias; a share.

        As the claims' gate judges it: LD clean > LD corrupt in more than .9 of the prompts.
        Without corrupt prompts: whether the target is preferred in more than .9 of them.
        """
        return self.study.verdict(self.study.validity, "unhooked", BOTH)

    @property
    def rows(self) -> pandas.DataFrame:
        """One row per clean prompt, without any intervention: see docs/api.md."""
        return self.study.tables.clean

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per kind of prompt: kind, n, accuracy, ld, top1, p_target, rank.

        kind: the family and cell, "all" without any. accuracy: the share with LD > 0; ld: the mean
        LD, logits; top1: the share whose most probable token is the target; p_target: its mean
        probability; rank: its median rank, 0 the most probable.
        """
        import pandas

        from tinyablation.measurement.validity import competence

        found = competence(self.rows)
        return pandas.DataFrame([{"kind": name, **cell._asdict()} for name, cell in found.items()])

    @property
    def defects(self) -> dict[str, str]:
        """Of prompts of one's own: kind of defect -> their number and the line of the first."""
        prompts, bench = self.study.prompts, self.study.bench
        if prompts is None:
            return {}
        facts, entry = bench.facts, bench.entry
        return listed(bench.library.defects(facts.folder, self.study.condition, entry.id))

    def __repr__(self) -> str:
        return f"Check({self.study.title}: {self.verdict})"

    def _repr_html_(self) -> str:
        rows = self.table.to_numpy().tolist()
        made = self.verdict._repr_html_() + html_table("clean prompts", list(self.table), rows)
        if self.defects:
            found = list(self.defects.items())
            made += html_table("defects of the prompts", ("kind", "lines"), found)
        return made
