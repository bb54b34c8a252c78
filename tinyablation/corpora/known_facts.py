"""The examples of a crossed corpus that count for a model, selected before any ablation.

Within the families that count (validity.py), an example counts if the model knows its fact, as
judged by the other wordings of the fact, never by the prompt itself. Filtering on the judged prompt
would drop the prompts on which a suppressor is strong, and bias its effect downwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyablation.corpora.examples import SPLITS, family_of
from tinyablation.files.hashes import HASH_DIGITS, digest

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example

# With fewer wordings, at most one other wording could show that a fact is known: no filtering.
LEAST_WORDINGS = 3
# Fewer known relations in a split do not support a meaningful interval.
LEAST_CLUSTERS = 5


@dataclass(frozen=True)
class Selection:
    """The examples that count for one model under one condition.

    rows: rows of the corpus; families: those that count; known: by relation, the number of its
    facts with an example that counts, and of all; lacking: why they are too few to judge, or "".
    """

    rows: frozenset[int]
    families: tuple[str, ...]
    known: Mapping[str, tuple[int, int]]
    lacking: str = ""

    @property
    def token(self) -> str:
        """The rows as part of an address."""
        return digest(sorted(self.rows))[:HASH_DIGITS]

    @property
    def share(self) -> float:
        """The share of the facts that are known; 0 if no family counts."""
        kept, whole = (sum(counts[n] for counts in self.known.values()) for n in (0, 1))
        return kept / whole if whole else 0.0


NOTHING = Selection(frozenset(), (), {}, "none of its families is valid")


def known_rows(clean: "pandas.DataFrame") -> list[bool]:
    """For each row of the unhooked model's clean table: whether other wordings show its fact known.

    It is known if LD > 0 in more than half of the prompts of the same fact and family in other
    wordings. A fact with fewer than LEAST_WORDINGS wordings counts as known.
    """
    families = [family_of(str(name)) for name in clean["template_id"]]
    keys = list(zip(families, map(str, clean["fact_id"]), strict=True))
    wordings = [str(name) for name in clean["template_id"]]
    right = (clean["logit_diff"] > 0).tolist()
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    found = [True] * len(keys)
    for members in groups.values():
        if len({wordings[row] for row in members}) < LEAST_WORDINGS:
            continue
        for row in members:
            others = [right[other] for other in members if wordings[other] != wordings[row]]
            found[row] = 2 * sum(others) > len(others)
    return found


def select(
    examples: Sequence["Example"],
    splits: Mapping[int, str],
    clean: "pandas.DataFrame",
    rows: Sequence[int],
    families: tuple[str, ...],
) -> Selection:
    """The selection based on the unhooked model's clean table.

    examples: the whole corpus; splits: row -> its split; clean: one table row for each of the
    corpus rows `rows`, in their order, all from families that count.
    """
    kept = {row for row, known in zip(rows, known_rows(clean), strict=True) if known}
    facts: dict[str, set[tuple[str, str]]] = {}
    own: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        example = examples[row]
        fact = (example.family, example.fact_id)
        facts.setdefault(example.cluster_id, set()).add(fact)
        if row in kept:
            own.setdefault(example.cluster_id, set()).add(fact)
    known = {
        name: (len(own.get(name, ())), len(members)) for name, members in sorted(facts.items())
    }
    clusters = {
        split: {examples[row].cluster_id for row in kept if splits[row] == split}
        for split in SPLITS
    }
    few = [
        f"{len(names)} of {split}"
        for split, names in clusters.items()
        if len(names) < LEAST_CLUSTERS
    ]
    lacking = (
        f"it knows facts of too few relations: {', '.join(few)}, {LEAST_CLUSTERS} are wanted"
        if few
        else ""
    )
    return Selection(frozenset(kept), families, known, lacking)
