"""Sampling: the examples of a condition that a measurement of one model uses."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tinyablation.corpora.subsampling import (
    mirror_rows,
    one_wording,
    subsample,
    subsample_pairs,
)
from tinyablation.files.hashes import digest
from tinyablation.interventions.batteries import EVERYTHING, Sample
from tinyablation.measurement.gate import RELATIONS, Gate
from tinyablation.memo import Memo

if TYPE_CHECKING:
    from tinyablation.corpora.examples import Example
    from tinyablation.corpora.known_facts import Selection
    from tinyablation.measurement.interface import Measures


class Sampling:
    """Draws the samples of one bench from the examples that count for its model (gate.py)."""

    def __init__(self, bench: "Measures", gate: Gate) -> None:
        self.bench = bench
        self.gate = gate
        self._memo = Memo()

    def clear(self) -> None:
        """Clear the cache."""
        self._memo.clear()

    def paired(self, condition: str, sample: Sample) -> "Sequence[Example | None]":
        """By row of the corpus: the example with the corrupt prompt that the sample measures.

        None where nothing in the clean prompt can be replaced by unknown words.
        """
        corpus, _ = self.bench.corpus(condition)
        if sample.pairs == "own":
            return corpus.examples

        def make() -> "Sequence[Example | None]":
            from tinyablation.measurement.head_readings import UnknownPrompts

            prompts = self.bench.reading(condition, UnknownPrompts()).document()["corrupt"]
            return [
                None if prompt is None else replace(example, corrupt=prompt, aligned=True)
                for example, prompt in zip(corpus.examples, prompts, strict=True)
            ]

        return self._memo(("pairs", condition), make)

    def examples(self, condition: str, sample: Sample, rows: Iterable[int]) -> "list[Example]":
        """The examples of these rows, with the corrupt prompts that the sample measures."""
        paired = self.paired(condition, sample)
        return [example for row in rows if (example := paired[row]) is not None]

    def mirrored(self, condition: str, sample: Sample) -> float:
        """The share of a sample's aligned pairs whose mirror is in the corpus.

        A pair's mirror is clean where it is corrupt: over both, patching one way is the same as
        patching the other.
        """
        corpus, _ = self.bench.corpus(condition)
        rows = self.rows(condition, replace(sample, pairs="own"), aligned=True)
        mirrors = mirror_rows(corpus.examples)
        return sum(mirrors[row] is not None for row in rows) / len(rows) if rows else 0.0

    def per_cluster(self, condition: str, sample: Sample) -> int:
        """The most examples of a cluster in a sample; 0: all.

        Clusters of a crossed corpus are relations with many examples each. For samples of known
        facts, "all" then means `per_relation`, two means half of that (at least a pair of mirrors),
        and one means a quarter.
        """
        if not self.bench.corpus(condition)[0].is_crossed or sample.among != "known":
            return sample.per_cluster
        if sample.per_cluster == 1:
            return max(1, self.bench.per_relation // 4)
        # At least a pair of mirrors, so that each answer is target as often as foil.
        return max(2, self.bench.per_relation // (2 if sample.per_cluster else 1))

    def wordings(self, condition: str, sample: Sample) -> str | None:
        """How a sample takes wordings, unless it takes all; part of an address.

        "one": one of each item's. "in-turn": of a cluster's few examples each has another.
        """
        corpus, _ = self.bench.corpus(condition)
        if corpus.is_crossed:
            return None
        if sample.wordings == "all":
            return "in-turn" if sample.per_cluster else None
        return "one" if self._memo(("factorial", condition), lambda: corpus.is_factorial) else None

    def _one_wording(self, condition: str) -> set[int]:
        """The rows of the corpus that hold the one wording of each item."""
        corpus, halves = self.bench.corpus(condition)

        def make() -> set[int]:
            return set(one_wording(corpus.examples, halves.of_row(), self.bench.seed))

        return self._memo(("one wording", condition), make)

    def rows(
        self, condition: str, sample: Sample = EVERYTHING, *, aligned: bool = False
    ) -> dict[int, str]:
        """Corpus row -> split of the rows that a sample measures, in row order.

        aligned: only pairs whose two prompts have equal numbers of tokens.
        """
        key = ("rows", condition, sample, aligned)  # each of a sample's batteries asks again
        return self._memo(key, lambda: self._rows(condition, sample, aligned=aligned))

    def _rows(self, condition: str, sample: Sample, *, aligned: bool) -> dict[int, str]:
        corpus, _ = self.bench.corpus(condition)
        found = self.counting(condition, sample, aligned=aligned)
        if self.wordings(condition, sample) == "one":
            chosen_rows = self._one_wording(condition)
            found = {row: name for row, name in found.items() if row in chosen_rows}
        most = self.per_cluster(condition, sample)
        if most:
            rows = list(found)
            chosen = self.examples(condition, sample, rows)
            if corpus.is_crossed:
                gating = RELATIONS if sample.among == "all" else 0
                kept_rows = subsample_pairs(
                    chosen, most, self.bench.seed, clusters_by_family=gating
                )
            else:
                halves = [found[row] for row in rows]
                kept_rows = subsample(chosen, halves, most, self.bench.seed)
            found = {rows[index]: found[rows[index]] for index in kept_rows}
        if self.bench.share == 1.0:
            return found
        from tinyablation.runs.across_seeds import draw_clusters

        kept: dict[int, str] = {}
        for name in sorted(set(found.values())):
            rows = [row for row in found if found[row] == name]
            drawn = draw_clusters(
                [corpus.examples[row].cluster_id for row in rows], self.bench.share, self.bench.seed
            )
            kept |= {rows[int(index)]: name for index in drawn.nonzero()[0]}
        return dict(sorted(kept.items()))

    def counting(self, condition: str, sample: Sample, *, aligned: bool = False) -> dict[int, str]:
        """Corpus row -> split of all rows that a sample is drawn from, in row order."""
        key = ("counting", condition, sample, aligned)
        return self._memo(key, lambda: self._counting(condition, sample, aligned=aligned))

    def _counting(self, condition: str, sample: Sample, *, aligned: bool) -> dict[int, str]:
        corpus, halves = self.bench.corpus(condition)
        selection = self._selection_for(condition, sample)
        families = self.gate.families(condition) if sample.among == "counting" else ()
        paired = self.paired(condition, sample)
        found = {
            row: name
            for row, name in sorted(halves.of_row().items())
            if sample.split in (None, name)
            and (example := paired[row]) is not None
            and (example.aligned or not aligned)
            and (selection is None or row in selection.rows)
            and (not families or example.family in families)
        }
        return (
            self._with_donors(condition, sample, found)
            if sample.lent and corpus.is_crossed
            else found
        )

    def _with_donors(self, condition: str, sample: Sample, rows: dict[int, str]) -> dict[int, str]:
        """The rows for which a prompt of another relation has the same length, on either side."""
        lengths = self.prompt_lengths(condition)
        corpus, _ = self.bench.corpus(condition)
        relations: dict[int, set[str]] = {}
        lenders = replace(EVERYTHING, pairs=sample.pairs)
        for row in self.counting(condition, lenders, aligned=True):
            relations.setdefault(lengths[row], set()).add(corpus.examples[row].cluster_id)
        return {
            row: name
            for row, name in rows.items()
            if relations.get(lengths[row], set()) - {corpus.examples[row].cluster_id}
        }

    def prompt_lengths(self, condition: str) -> list[int]:
        """The number of tokens of the clean prompt, by row of the corpus."""
        from tinyablation.measurement.head_readings import Lengths

        return self._memo(
            ("lengths", condition),
            lambda: self.bench.reading(condition, Lengths()).document()["lengths"],
        )

    def pool(self, condition: str, wanted: Sample) -> list[int]:
        """The rows of all examples that means and donors of a sample may come from."""
        sample = Sample(among=wanted.among, pairs=wanted.pairs)
        if self.bench.share != 1.0:
            return list(self.rows(condition, sample))
        return list(self.counting(condition, sample))

    def token(self, condition: str, sample: Sample) -> str | None:
        """The part of an address that identifies the examples counted in a crossed corpus."""
        corpus, _ = self.bench.corpus(condition)
        selection = self._selection_for(condition, sample)
        token = None if selection is None else selection.token
        if corpus.is_crossed and sample.among == "counting":
            token = "-".join(self.gate.families(condition))
        if corpus.is_crossed and sample.lent:
            every = self.counting(condition, replace(sample, lent=False))
            own = self.counting(condition, sample)
            # If nothing is left out, it is the same measurement.
            token = token if own == every else f"{token or 'all'}-{digest(sorted(own))[:6]}"
        if sample.pairs == "unknown":
            # Corrupt prompts depend on the tables of words, which no other part of it identifies.
            rows = self.counting(condition, sample)
            prompts = [example.corrupt for example in self.examples(condition, sample, rows)]
            token = f"{token or 'all'}-unknown-{digest(prompts)[:6]}"
        return token

    def _selection_for(self, condition: str, sample: Sample) -> "Selection | None":
        return self.gate.selection(condition) if sample.among == "known" else None
