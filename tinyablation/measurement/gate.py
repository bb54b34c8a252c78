"""The gate: what the unhooked model knows, measured before anything is ablated, patched or steered.

It decides whether a condition is valid for a model (validity.py), and which examples of a crossed
corpus count (known_facts.py). No sweep starts for a condition that does not pass.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from tinyablation.corpora.subsampling import mirror_rows
from tinyablation.interventions.batteries import BASELINE, Battery, Sample, battery
from tinyablation.measurement.protocols import PUBLISHED
from tinyablation.memo import Memo

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.known_facts import Selection
    from tinyablation.measurement.interface import Measures
    from tinyablation.measurement.validity import Tables
    from tinyablation.runs.store import Run
    from tinyablation.verdicts.verdicts import Verdict

# Families of a crossed corpus are judged by one pair of mirrors from each of this many relations.
# With 80 prompts a share of .97 has an interval of +- .04.
EACH, RELATIONS = 2, 40
NULL = "null"  # the battery, and the side, of prompts without content


class Gate:
    """The gate of one bench, with a cache of its results."""

    def __init__(self, bench: "Measures") -> None:
        self.bench = bench
        self._memo = Memo()

    def clear(self) -> None:
        """Clear the cache."""
        self._memo.clear()

    def batteries(self, condition: str) -> tuple[Battery, ...]:
        """The unhooked batteries of a condition: those that decide its validity, and null prompts.

        Null prompts only if every example has one. If every corrupt prompt of a crossed corpus is
        the clean one of its mirror, corrupt prompts are not measured separately.
        """
        corpus, _ = self.bench.corpus(condition)
        sample = Sample(per_cluster=EACH if corpus.is_crossed else 0, among="all")
        sides = [BASELINE]
        if not corpus.is_crossed or self._mirrors(condition, sample) is None:
            sides.append("corrupt")
        if all(example.null for example in corpus.examples):
            sides.append(NULL)
        return tuple(replace(battery(name), sample=sample) for name in sides)

    def _mirrors(self, condition: str, sample: Sample) -> list[int] | None:
        """For each example of a sample, the index of its mirror; None if any has no mirror."""
        corpus, _ = self.bench.corpus(condition)
        mirrors = mirror_rows([corpus.examples[row] for row in self.bench.rows(condition, sample)])
        found = [index for index in mirrors if index is not None]
        return found if len(found) == len(mirrors) else None

    def unhooked(self, condition: str) -> "Tables":
        """The tables of the unhooked model on clean, corrupt and null prompts of a condition."""
        return self._memo(
            ("unhooked", condition), lambda: self._tables(condition, self.batteries(condition))
        )

    def deciding(self, condition: str) -> "Tables":
        """The tables of clean and corrupt prompts alone, by which a condition is judged valid."""
        batteries = tuple(each for each in self.batteries(condition) if each.name != NULL)
        return self._memo(("deciding", condition), lambda: self._tables(condition, batteries))

    def _tables(self, condition: str, gate: tuple[Battery, ...]) -> "Tables":
        from tinyablation.measurement.validity import Tables, mirrored

        self.bench.ahead(condition, *gate)
        runs = {each.name: self.bench.run(condition, each) for each in gate}
        clean = _in_order(runs[BASELINE])
        if "corrupt" in runs:
            corrupt = _in_order(runs["corrupt"])
        else:
            mirrors = self._mirrors(condition, gate[0].sample)
            assert mirrors is not None  # else the corrupt prompts were measured
            corrupt = mirrored(clean, mirrors)
        null = _in_order(runs[NULL]) if NULL in runs else None
        noise = max(run.noise_floor() for run in runs.values())
        return Tables(clean, corrupt, null, noise, tuple(run.name for run in runs.values()))

    def validities(self, condition: str) -> "dict[str, Verdict]":
        """Family -> whether it is valid for the model ("" if the condition has no families)."""
        return self._memo(("validities", condition), lambda: self._validities(condition))

    def _validities(self, condition: str) -> "dict[str, Verdict]":
        from tinyablation.measurement.validity import family_validity

        return family_validity(self.deciding(condition), seed=self.bench.seed)

    def families(self, condition: str) -> tuple[str, ...]:
        """The families that count for the model."""
        from tinyablation.measurement.validity import counting

        return counting(self.validities(condition))

    def validity(self, condition: str) -> "Verdict | None":
        """The verdict on the condition's validity for the model; None: the protocol has no gate."""
        return None if self.bench.protocol == PUBLISHED else self.judged(condition)

    def judged(self, condition: str) -> "Verdict":
        """The verdict on the condition's validity for the model, under any protocol."""
        return self._memo(("judged", condition), lambda: self._judged(condition))

    def _judged(self, condition: str) -> "Verdict":
        from tinyablation.measurement.validity import combined

        return combined(self.validities(condition), self.deciding(condition))

    def counting(self, condition: str) -> "Tables":
        """The unhooked rows of the families that count; of all families if none does."""
        tables = self.unhooked(condition)
        return tables.of(*(self.families(condition) or tables.families))

    def selection(self, condition: str) -> "Selection | None":
        """The examples of a crossed corpus that count for the model, based on unhooked rows only.

        Measures all prompts of the families that count. None for any other corpus, and for the
        published protocol, which has no gate.
        """
        return self._memo(("selection", condition), lambda: self._selection(condition))

    def _selection(self, condition: str) -> "Selection | None":
        from tinyablation.corpora.known_facts import NOTHING, select

        bench = self.bench
        corpus, halves = bench.corpus(condition)
        if not corpus.is_crossed or bench.protocol == PUBLISHED:
            return None
        families = self.families(condition)
        if not families:
            return NOTHING
        sample = Sample(among="counting")
        table = _in_order(bench.run(condition, replace(battery(BASELINE), sample=sample)))
        rows = list(bench.counting(condition, sample))
        return select(corpus.examples, halves.of_row(), table, rows, families)

    def reason_blocked(self, condition: str) -> str | None:
        """Why claims about the condition cannot be judged for the model; None if they can."""
        invalid = self.blocked_by_validity(condition)
        if invalid is not None:
            return invalid
        selection = self.selection(condition)
        return None if selection is None else selection.lacking or None

    def blocked_by_validity(self, condition: str) -> str | None:
        """The same, but by validity alone, without the known facts."""
        from tinyablation.measurement.validity import blocks

        validity = self.validity(condition)
        return validity.reason if validity is not None and blocks(validity) else None


def _in_order(run: "Run") -> "pandas.DataFrame":
    return run.table().sort_values("example").reset_index(drop=True)
