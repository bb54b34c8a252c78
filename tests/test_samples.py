"""Which examples are drawn: by the seed, from every cluster, with labels kept balanced.

Run: pytest tests/test_samples.py
"""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tinyablation.corpora import Example
from tinyablation.samples import thin


def example(number: int, cluster: str, yes: bool) -> Example:
    target, foil = (" yes", " no") if yes else (" no", " yes")
    return Example(
        clean=f"question {number}",
        corrupt=f"other question {number}",
        null="",
        target=target,
        foil=foil,
        fact_id=f"fact{number}",
        template_id="plain.is",
        cluster_id=cluster,
        cell="",
        aligned=True,
    )


BALANCED = [
    example(4 * cluster + number, f"c{cluster}", number % 2 == 0)
    for cluster in range(12)
    for number in range(4)
]


def test_every_cluster_gives_as_many_and_labels_stay_balanced():
    kept = [BALANCED[index] for index in thin(BALANCED, 2, seed=0)]
    assert Counter(each.cluster_id for each in kept) == {f"c{n}": 2 for n in range(12)}
    assert Counter(each.target for each in kept) == {" yes": 12, " no": 12}


def test_the_seed_draws_which():
    """Pitfall P11."""
    assert thin(BALANCED, 2, seed=0) == thin(BALANCED, 2, seed=0)
    assert len({tuple(thin(BALANCED, 2, seed=seed)) for seed in range(5)}) == 5


def test_a_cluster_does_not_depend_on_which_others_there_are():
    """So that a smaller corpus measures the same examples of what it has."""
    first = BALANCED[:8]
    assert thin(first, 2, seed=3) == [i for i in thin(BALANCED, 2, seed=3) if i < 8]


@given(
    members=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30),
    per_cluster=st.integers(1, 5),
    seed=st.integers(0, 3),
)
def test_no_cluster_is_lost_and_none_gives_more(members, per_cluster, seed):
    examples = [example(n, cluster, yes) for n, (cluster, yes) in enumerate(members)]
    kept = thin(examples, per_cluster, seed)
    assert kept == sorted(set(kept))
    whole = Counter(each.cluster_id for each in examples)
    drawn = Counter(examples[index].cluster_id for index in kept)
    assert drawn == {name: min(count, per_cluster) for name, count in whole.items()}
