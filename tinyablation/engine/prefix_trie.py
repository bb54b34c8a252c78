"""Prompts with common prefixes, packed into one row that holds every distinct prefix once.

At each token a causal model's computation depends only on that token and those before it, so
prompts with a common prefix share its activations. The row holds the nodes of a trie, each after
its parent; a node attends to its ancestors and to itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tinyablation.engine.prompt_checks import Ids


class Trie(NamedTuple):
    """The distinct prefixes of some prompts.

    tokens: one per node; parents: the preceding node, -1 at the beginning of a prompt; positions:
    the number of ancestors; ends: by prompt, the node of its last token.
    """

    tokens: Int[np.ndarray, " nodes"]
    parents: Int[np.ndarray, " nodes"]
    positions: Int[np.ndarray, " nodes"]
    ends: Int[np.ndarray, " prompts"]

    def visible(self) -> Bool[np.ndarray, "nodes nodes"]:
        """Which nodes (columns) each node (row) attends to; none of them follows it."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def trie(prompts: Sequence[Ids]) -> Trie:
    """The prompts' trie, with nodes in the order in which the prompts first reach them."""
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
    ends = []
    for ids in prompts:
        at = -1
        for token in ids:
            at = nodes.setdefault((at, token), len(nodes))
        ends.append(at)
    parents = np.array([parent for parent, _ in nodes])
    positions = np.zeros(len(nodes), dtype=np.int64)
    for node, parent in enumerate(parents):
        positions[node] = positions[parent] + 1 if parent >= 0 else 0
    return Trie(np.array([token for _, token in nodes]), parents, positions, np.array(ends))


def packs(prompts: Sequence[Ids], most_nodes: int, most_prompts: int) -> list[list[int]]:
    """Indices of the prompts in packs of at most most_nodes and most_prompts, but at least one.

    Sorted by tokens, so that prompts with common prefixes are neighbours.
    """
    found: list[list[int]] = []
    used = 0
    for index in sorted(range(len(prompts)), key=lambda place: prompts[place]):
        ids = prompts[index]
        new = len(ids) - (_shared(prompts[found[-1][-1]], ids) if found else 0)
        if not found or used + new > most_nodes or len(found[-1]) >= most_prompts:
            found.append([])
            used, new = 0, len(ids)
        found[-1].append(index)
        used += new
    return found


def _shared(one: Ids, other: Ids) -> int:
    """The length of the common prefix of two prompts."""
    shortest = min(len(one), len(other))
    return next((n for n in range(shortest) if one[n] != other[n]), shortest)
