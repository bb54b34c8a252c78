"""Which examples a measurement is made on, where it is not all of them: drawn by the seed.

Clusters are the unit of every interval, so a few examples of each cluster cost little of its width
and save most of its work.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from tinyablation.corpora.examples import Example


def subsample(examples: Sequence["Example"], per_cluster: int, seed: int) -> list[int]:
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


def subsample_pairs(
    examples: Sequence["Example"], per_cluster: int, seed: int, *, clusters_by_family: int = 0
) -> list[int]:
    """Indices, in order, of at most `per_cluster` examples of each cluster of a crossed corpus.

    clusters_by_family: of so many clusters of each family, drawn, and of each of these so many; 0:
    of every cluster, whatever its families. An example is drawn with its mirror, the example
    whose clean prompt is its corrupt one, so that each answer is target as often as foil; both
    count. The kinds of prompt (wording and cell) are taken in turn, beginning with another one in
    each cluster, so that few examples a cluster still hold all of them over the clusters.
    """
    mirrors = mirror_rows(examples)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, example in enumerate(examples):
        family = example.family if clusters_by_family else ""
        groups.setdefault((family, example.cluster_id), []).append(index)
    kept: list[int] = []
    families = sorted({family for family, _ in groups})
    for family in families:
        names = sorted(name for own, name in groups if own == family)
        kinds = sorted({_kind(examples[i]) for name in names for i in groups[family, name]})
        order = generator(seed, f"turns of clusters {family}").permutation(len(names))
        for turn, place in enumerate(order[: clusters_by_family or len(order)]):
            name = names[int(place)]
            kept += _some(examples, groups[family, name], mirrors, per_cluster, kinds, turn, seed)
    return sorted(kept)


def _kind(example: "Example") -> tuple[str, str]:
    return example.template_id, example.cell


def _some(
    examples: Sequence["Example"],
    members: Sequence[int],
    mirrors: Sequence[int | None],
    most: int,
    kinds: Sequence[tuple[str, str]],
    turn: int,
    seed: int,
) -> list[int]:
    """At most `most` of a cluster's examples, by kind in turn from the turn-th on."""
    cluster = examples[members[0]].cluster_id
    shuffled = generator(seed, f"pairs of cluster {cluster}").permutation(len(members))
    waiting: dict[tuple[str, str], list[int]] = {}
    for place in shuffled:
        index = members[int(place)]
        waiting.setdefault(_kind(examples[index]), []).append(index)
    inside = set(members)
    kept: list[int] = []
    step = turn
    while len(kept) < most and any(waiting.values()):
        queue = waiting.get(kinds[step % len(kinds)], [])
        step += 1
        while queue and queue[0] in kept:
            queue.pop(0)
        if not queue:
            continue
        index = queue.pop(0)
        kept.append(index)
        mirror = mirrors[index]
        if mirror in inside and mirror not in kept and len(kept) < most:
            assert mirror is not None
            kept.append(mirror)
    return kept


def mirror_rows(examples: Sequence["Example"]) -> list[int | None]:
    """By example, the index of the one whose clean prompt is its corrupt one and whose target is
    its foil; None where there is none."""
    places = {(e.clean, e.target, e.foil): index for index, e in enumerate(examples)}
    return [places.get((e.corrupt, e.foil, e.target)) for e in examples]
