"""Prompts that begin alike in one row. Run: pytest tests/engine/test_prefix_trie.py"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyablation.engine.prefix_trie import packs, trie

PROMPTS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=12
)


def prefixes(prompts):
    return {ids[:n] for ids in prompts for n in range(1, len(ids) + 1)}


def test_a_shared_beginning_stands_there_once():
    found = trie([(5, 6, 7), (5, 6, 8, 9), (5, 6)])
    assert found.tokens.tolist() == [5, 6, 7, 8, 9]
    assert found.parents.tolist() == [-1, 0, 1, 1, 3]
    assert found.positions.tolist() == [0, 1, 2, 2, 3]
    assert found.ends.tolist() == [2, 4, 1]
    assert found.visible()[4].tolist() == [True, True, False, True, True]


@given(PROMPTS)
def test_a_node_sees_its_own_prefix_and_nothing_else(prompts):
    found = trie(prompts)
    assert len(found.tokens) == len(prefixes(prompts))
    seen = found.visible()
    # A causal mask, which models put on top of any other, hides nothing that is visible.
    assert not np.triu(seen, 1).any()
    for ids, end in zip(prompts, found.ends, strict=True):
        nodes = np.flatnonzero(seen[end])
        assert tuple(found.tokens[nodes].tolist()) == ids
        assert found.positions[nodes].tolist() == list(range(len(ids)))


@given(PROMPTS, st.integers(1, 20), st.integers(1, 5))
def test_packs_hold_every_prompt_once_and_no_more_than_they_may(prompts, most_nodes, most_prompts):
    distinct = list(dict.fromkeys(prompts))
    found = packs(distinct, most_nodes, most_prompts)
    assert sorted(index for pack in found for index in pack) == list(range(len(distinct)))
    for pack in found:
        own = [distinct[index] for index in pack]
        assert own == sorted(own) and len(own) <= most_prompts
        assert len(own) == 1 or len(trie(own).tokens) <= most_nodes


def test_prompts_that_begin_alike_are_packed_together():
    prompts = [(n % 3, 7, n) for n in range(9)]
    # Three beginnings of two tokens, three ends each: five nodes.
    assert packs(prompts, 5, 9) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
