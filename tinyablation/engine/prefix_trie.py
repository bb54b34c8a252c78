"""Prompts that begin alike, laid in one row: every distinct prefix stands there once.

What a causal model computes at a token depends on the tokens before it and on nothing else, so
prompts with a prefix in common have its activations in common. The row holds the nodes of a trie,
each after the node it follows; a node attends to the nodes that lead to it, and to itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from tinyablation.engine.prompt_checks import Ids


class Trie(NamedTuple):
    """The distinct prefixes of some prompts.

    tokens: of each node; parents: the node before it, -1 at the beginning of a prompt; positions:
    how many nodes lead to it; ends: by prompt, the node of its last token.
    """

    tokens: Int[np.ndarray, " nodes"]
    parents: Int[np.ndarray, " nodes"]
    positions: Int[np.ndarray, " nodes"]
    ends: Int[np.ndarray, " prompts"]

    def visible(self) -> Bool[np.ndarray, "nodes nodes"]:
        """Which nodes (columns) each node (row) attends to; none of them comes after it."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def trie(prompts: Sequence[Ids]) -> Trie:
    """The prompts' trie, its nodes in the order in which the prompts come to them."""
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
    """Indices of the prompts in packs of at most so many nodes and prompts, one at least.

    In the order of their tokens, so that those which begin alike stand beside each other.
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
    """How many tokens two prompts begin with alike."""
    shortest = min(len(one), len(other))
    return next((n for n in range(shortest) if one[n] != other[n]), shortest)
