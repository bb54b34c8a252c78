"""Which examples a measurement is made on, where it is not all of them: drawn by the seed.

Clusters are the unit of every interval, so a few examples of each cluster cost little of its width
and save most of its work.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyablation.statistics import generator

if TYPE_CHECKING:
    from tinyablation.corpora import Example


def thin(examples: Sequence["Example"], per_cluster: int, seed: int) -> list[int]:
    """Indices, in order, of at most `per_cluster` examples of each cluster.

    Drawn by (seed, cluster). Examples whose target sorts before their foil and those where it does
    not are taken in turn, so that labels which were balanced stay so.
    """
    clusters: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        clusters.setdefault(example.cluster_id, []).append(index)
    kept: list[int] = []
    for name, members in sorted(clusters.items()):
        order = generator(seed, f"examples of cluster {name}").permutation(len(members))
        drawn = [members[int(place)] for place in order]
        turns: tuple[list[int], list[int]] = ([], [])
        for index in drawn:
            turns[examples[index].target < examples[index].foil].append(index)
        # In turn: the first of each kind, then the second of each, as long as there are any.
        ranked = sorted(drawn, key=lambda index: _rank(index, turns))
        kept += ranked[:per_cluster]
    return sorted(kept)


def _rank(index: int, turns: tuple[list[int], list[int]]) -> int:
    return next(kind.index(index) for kind in turns if index in kind)
