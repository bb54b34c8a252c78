"""Subsampling: the examples of a measurement that does not use all of them, drawn by the seed.

Clusters are the units of every interval, so all of them are kept. How much an interval widens with
few examples of each depends on how alike these are: standard errors of head sets, with one example
of each cluster instead of all, are 1.3 to 3.9 times as wide on the embedded models.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from tinyablation.corpora.examples import Example


def subsample(
    examples: Sequence["Example"], halves: Sequence[str], per_cluster: int, seed: int
) -> list[int]:
    """Indices, in order, of at most `per_cluster` examples of each cluster, kinds in turn.

    halves: the split of each example. In each split the clusters are put into an order drawn by the
    seed, and each gives those of its examples whose label (which of target and foil sorts first),
    cell and wording are most behind their share of the split; the draw decides between equals
    (minimisation: Pocock & Simon 1975). So labels, cells and wordings have the shares they have in
    the corpus, up to a few; a draw of its own for each cluster may leave a wording with 5 of 48.
    """
    kept: list[int] = []
    for split in sorted(set(halves)):
        rows = [index for index, half in enumerate(halves) if half == split]
        clusters: dict[str, list[int]] = {}
        for index in rows:
            clusters.setdefault(examples[index].cluster_id, []).append(index)
        shares = _Shares([examples[index] for index in rows])
        names = sorted(clusters)
        for place in generator(seed, f"turns of clusters {split}").permutation(len(names)):
            name = names[int(place)]
            members = clusters[name]
            order = generator(seed, f"examples of cluster {name}").permutation(len(members))
            left = [members[int(each)] for each in order]
            for _ in range(min(per_cluster, len(left))):
                index = max(left, key=lambda index: shares.behind(examples[index]))
                shares.take(examples[index])
                left.remove(index)
                kept.append(index)
    return sorted(kept)


class _Shares:
    """How far labels, cells, wordings and all three together are behind their shares of a split."""

    def __init__(self, examples: Sequence["Example"]) -> None:
        whole = Counter(kind for example in examples for kind in _kinds(example))
        self.share = {kind: count / len(examples) for kind, count in whole.items()}
        self.taken: Counter[object] = Counter()
        self.n = 0

    def behind(self, example: "Example") -> float:
        kinds = _kinds(example)
        found = sum(self.share[kind] * (self.n + 1) - self.taken[kind] for kind in kinds)
        return round(found, 9)  # so that equals are equal, in whatever order they are summed

    def take(self, example: "Example") -> None:
        self.taken.update(_kinds(example))
        self.n += 1


def _kinds(example: "Example") -> tuple[tuple[str, object], ...]:
    label, cell, wording = example.target < example.foil, example.cell, example.template_id
    every = (label, cell, wording)
    return (("label", label), ("cell", cell), ("wording", wording), ("all", every))


def one_wording(examples: Sequence["Example"], halves: Mapping[int, str], seed: int) -> list[int]:
    """Indices, in order, of one example of each item of a factorial corpus, wordings in turn.

    halves: index -> split of the examples that count. In each split the clusters are put into an
    order drawn by the seed; the first item of the first cluster takes the first wording, its second
    item the second, and the next cluster begins one wording later. So the wordings are equally
    frequent, up to one, in each cluster, and over the clusters of a split at each place in the
    order of items (by cell, then fact). An item keeps its wording whichever split is measured.
    """
    wordings = sorted({example.template_id for example in examples})
    kept: list[int] = []
    for split in sorted(set(halves.values())):
        clusters: dict[str, dict[tuple[str, str], dict[str, int]]] = {}
        for index, own in halves.items():
            if own == split:
                example = examples[index]
                items = clusters.setdefault(example.cluster_id, {})
                items.setdefault((example.cell, example.fact_id), {})[example.template_id] = index
        names = sorted(clusters)
        order = generator(seed, f"wordings of {split}").permutation(len(names))
        for turn, place in enumerate(order):
            for number, (_, rows) in enumerate(sorted(clusters[names[int(place)]].items())):
                start = (turn + number) % len(wordings)
                in_turn = (*wordings[start:], *wordings[:start])
                # A row may be in no split, so the wording whose turn it is may be missing.
                kept.append(next(rows[wording] for wording in in_turn if wording in rows))
    return sorted(kept)


def subsample_pairs(
    examples: Sequence["Example"], per_cluster: int, seed: int, *, clusters_by_family: int = 0
) -> list[int]:
    """Indices, in order, of at most `per_cluster` examples of each cluster of a crossed corpus.

    clusters_by_family: draw at most this many clusters of each family, and `per_cluster` examples
    of each; 0: of every cluster, regardless of family. An example is drawn with its mirror, the
    example whose clean prompt is its corrupt one, so that each answer is target as often as foil;
    both count. The kinds of prompt (wording and cell) are taken in turn, starting with a different
    one in each cluster, so that few examples per cluster still cover all kinds.
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
    """At most `most` of a cluster's examples, cycling through the kinds from number `turn` on."""
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
    """For each example the index of its mirror, or None.

    The mirror's clean prompt is the example's corrupt one, and its target is the example's foil.
    """
    places = {(e.clean, e.target, e.foil): index for index, e in enumerate(examples)}
    return [places.get((e.corrupt, e.foil, e.target)) for e in examples]
