"""Which examples are drawn: by the seed, from every cluster, with labels kept balanced.

Run: pytest tests/corpora/test_subsampling.py
"""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyablation.corpora.examples import Example
from tinyablation.corpora.subsampling import (
    mirror_rows,
    one_wording,
    subsample,
    subsample_pairs,
)


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


PLACES = ("and-no", "and-yes", "or-no", "or-yes")
SPLITS = ("confirmation", "discovery")


def factorial(clusters: int = 14, wordings: str = "abc") -> list[Example]:
    """In every cluster two facts in each of four cells, in every wording."""
    return [
        replace(
            example(0, f"c{cluster}", cell.endswith("yes")),
            clean=f"{cluster} {cell} {fact} {wording}",
            fact_id=f"{cluster}/{fact}",
            template_id=f"plain.{wording}",
            cell=cell,
        )
        for cluster in range(clusters)
        for wording in wordings
        for fact in "xy"
        for cell in PLACES
    ]


FACTORIAL = factorial()
ALL_OF_ONE = ["confirmation"] * len(BALANCED)


def test_every_cluster_gives_as_many_and_labels_stay_balanced():
    kept = [BALANCED[index] for index in subsample(BALANCED, ALL_OF_ONE, 2, seed=0)]
    assert Counter(each.cluster_id for each in kept) == {f"c{n}": 2 for n in range(12)}
    assert Counter(each.target for each in kept) == {" yes": 12, " no": 12}


def test_the_seed_draws_which():
    """Pitfall P11."""
    drawn = {tuple(subsample(BALANCED, ALL_OF_ONE, 2, seed=seed)) for seed in range(5)}
    assert len(drawn) == 5
    assert subsample(BALANCED, ALL_OF_ONE, 2, seed=0) == subsample(BALANCED, ALL_OF_ONE, 2, seed=0)


def test_a_split_does_not_depend_on_the_other():
    """A battery of one split measures what a battery of both measures of it."""
    halves = ["confirmation" if number < 24 else "discovery" for number in range(48)]
    both = subsample(BALANCED, halves, 1, seed=3)
    assert [row for row in both if row < 24] == subsample(BALANCED[:24], halves[:24], 1, seed=3)


@given(
    members=st.lists(
        st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=1, max_size=30
    ),
    per_cluster=st.integers(1, 5),
    seed=st.integers(0, 3),
)
def test_no_cluster_is_lost_and_none_gives_more(members, per_cluster, seed):
    examples = [example(n, cluster, yes) for n, (cluster, yes, _) in enumerate(members)]
    halves = ["confirmation" if first else "discovery" for _, _, first in members]
    kept = subsample(examples, halves, per_cluster, seed)
    assert kept == sorted(set(kept))
    places = list(zip((each.cluster_id for each in examples), halves, strict=True))
    whole = Counter(places)
    drawn = Counter(places[index] for index in kept)
    assert drawn == {place: min(count, per_cluster) for place, count in whole.items()}


@pytest.mark.parametrize("per_cluster", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_labels_cells_and_wordings_have_the_shares_of_the_corpus(per_cluster, seed):
    """A draw of its own for each cluster left a wording with 5 of 48, where 16 were due."""
    examples = factorial(clusters=48)
    kept = subsample(examples, ["discovery"] * len(examples), per_cluster, seed)
    drawn = [examples[index] for index in kept]
    n = 48 * per_cluster
    for kind, n_kinds in (
        (lambda each: each.target, 2),
        (lambda each: each.cell, 4),
        (lambda each: each.template_id, 3),
        (lambda each: (each.cell, each.template_id), 12),
    ):
        assert Counter(map(kind, drawn)) == dict.fromkeys(map(kind, examples), n // n_kinds)


def test_unequal_cells_keep_their_shares():
    """Half of the logic corpus is of two cells, so that yes and no are as frequent."""
    often = [replace(each, fact_id=f"{each.fact_id} {n}") for each in FACTORIAL for n in range(3)]
    rare = [each for each in FACTORIAL if each.cell.startswith("or")]
    examples = rare + [each for each in often if each.cell.startswith("and")]
    kept = subsample(examples, ["discovery"] * len(examples), 2, seed=0)
    cells = Counter(examples[index].cell for index in kept)
    assert {cell: round(count / len(kept) * 8) for cell, count in cells.items()} == {
        "and-no": 3,
        "and-yes": 3,
        "or-no": 1,
        "or-yes": 1,
    }


# --- one wording of each item ---------------------------------------------------------------------

HALVES = {row: SPLITS[int(each.cluster_id[1:]) % 2] for row, each in enumerate(FACTORIAL)}


def even(counts: Counter, kinds: int) -> bool:
    """Whether so many kinds are there, and equally often up to one."""
    return len(counts) == kinds and max(counts.values()) - min(counts.values()) <= 1


def test_every_item_is_measured_in_one_wording_and_all_wordings_are_in_turn():
    kept = one_wording(FACTORIAL, HALVES, seed=0)
    assert kept == sorted(set(kept))
    drawn = [FACTORIAL[row] for row in kept]
    assert Counter(each.item for each in drawn) == {each.item: 1 for each in FACTORIAL}
    for cluster in {each.cluster_id for each in drawn}:
        assert even(Counter(e.template_id for e in drawn if e.cluster_id == cluster), 3)
    for split in SPLITS:
        own = [FACTORIAL[row] for row in kept if HALVES[row] == split]
        for cell in PLACES:
            for fact in "xy":
                of_place = [e for e in own if e.cell == cell and e.fact_id.endswith(fact)]
                assert even(Counter(each.template_id for each in of_place), 3)


def test_the_seed_draws_which_wording():
    """Pitfall P11."""
    assert one_wording(FACTORIAL, HALVES, seed=0) == one_wording(FACTORIAL, HALVES, seed=0)
    assert len({tuple(one_wording(FACTORIAL, HALVES, seed=seed)) for seed in range(5)}) == 5


def test_an_item_has_the_same_wording_whichever_split_is_measured():
    whole = one_wording(FACTORIAL, HALVES, seed=2)
    for split in SPLITS:
        own = {row: name for row, name in HALVES.items() if name == split}
        assert one_wording(FACTORIAL, own, seed=2) == [r for r in whole if HALVES[r] == split]


def test_what_is_in_no_split_gives_its_turn_to_the_next_wording():
    some = {row: half for row, half in HALVES.items() if row % 5}
    drawn = [FACTORIAL[row] for row in one_wording(FACTORIAL, some, seed=0)]
    items = {FACTORIAL[row].item for row in some}
    assert Counter(each.item for each in drawn) == dict.fromkeys(items, 1)
    assert not {FACTORIAL.index(each) for each in drawn} - set(some)


# --- crossed corpora ------------------------------------------------------------------------------


def crossed(relations: int, pairs: int = 3, families: str = "xy") -> list[Example]:
    """In every relation pairs of mirrors, in two families of two wordings and two cells."""
    made = []
    for relation in range(relations):
        for family in families:
            for wording in "ab":
                for cell in ("first", "last"):
                    for pair in range(pairs):
                        kind = f"{family}/{wording}"
                        sides = [f"{n} {relation} {kind} {cell} {pair}" for n in ("one", "two")]
                        for turn in (0, 1):
                            made.append(
                                replace(
                                    example(len(made), f"r{relation}", turn == 0),
                                    clean=sides[turn],
                                    corrupt=sides[1 - turn],
                                    template_id=kind,
                                    cell=cell,
                                )
                            )
    return made


CROSSED = crossed(12)


def test_mirrors_are_found_by_prompt_and_answers():
    mirrors = mirror_rows(CROSSED)
    assert mirrors == [index + 1 if index % 2 == 0 else index - 1 for index in range(len(CROSSED))]
    alone = [CROSSED[0], replace(CROSSED[1], target=" perhaps")]
    assert mirror_rows(alone) == [None, None]


@pytest.mark.parametrize("most", [2, 4])
def test_pairs_of_mirrors_are_drawn_from_every_cluster(most):
    kept = subsample_pairs(CROSSED, most, seed=0)
    assert kept == sorted(set(kept))
    mirrors = mirror_rows(CROSSED)
    assert {mirrors[index] for index in kept} == set(kept)
    drawn = [CROSSED[index] for index in kept]
    assert Counter(each.cluster_id for each in drawn) == {f"r{n}": most for n in range(12)}
    assert Counter(each.target for each in drawn) == {" yes": 6 * most, " no": 6 * most}


def test_few_examples_a_cluster_hold_all_kinds_over_the_clusters():
    drawn = [CROSSED[index] for index in subsample_pairs(CROSSED, 2, seed=0)]
    kinds = Counter((each.template_id, each.cell) for each in drawn)
    assert len(kinds) == 8 and max(kinds.values()) <= 2 * min(kinds.values())


def test_a_family_is_drawn_from_so_many_of_its_clusters():
    kept = [CROSSED[i] for i in subsample_pairs(CROSSED, 2, seed=0, clusters_by_family=5)]
    counts = Counter((each.family, each.cluster_id) for each in kept)
    assert set(counts.values()) == {2}
    assert Counter(family for family, _ in counts) == {"x": 5, "y": 5}
    # Of a family that is of few relations, all.
    less = [*crossed(3, families="x"), *crossed(12, families="y")]
    kept = [less[index] for index in subsample_pairs(less, 2, seed=0, clusters_by_family=5)]
    names = {(each.family, each.cluster_id) for each in kept}
    assert Counter(family for family, _ in names) == {"x": 3, "y": 5}


def test_the_seed_draws_which_pairs():
    """Pitfall P11."""
    assert subsample_pairs(CROSSED, 2, seed=0) == subsample_pairs(CROSSED, 2, seed=0)
    assert len({tuple(subsample_pairs(CROSSED, 2, seed=seed)) for seed in range(5)}) == 5


@given(
    st.lists(st.sampled_from(range(96)), min_size=1, max_size=40, unique=True),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_no_cluster_of_a_crossed_corpus_is_lost_and_none_gives_more(rows, most, seed):
    """Whatever is known: mirrors and kinds may be missing."""
    some = [CROSSED[row] for row in rows]
    drawn = Counter(some[index].cluster_id for index in subsample_pairs(some, most, seed))
    whole = Counter(each.cluster_id for each in some)
    assert drawn == {name: min(count, most) for name, count in whole.items()}
