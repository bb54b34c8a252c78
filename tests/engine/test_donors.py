"""Who lends activations to whom.

Run: pytest tests/engine/test_donors.py
"""

import pytest

from tinyablation.engine.donors import draw_donors
from tinyablation.engine.prompt_checks import EngineError, Ids

PROMPTS: list[Ids] = [(1, n, 3) for n in range(10, 20)] + [
    (1, 5, 6, 7),
    (1, 6, 6, 7),
    (1, 2),
]
CLUSTERS = [f"fact-{n % 3}" for n in range(len(PROMPTS))]


def test_donors_are_of_another_cluster_and_of_the_same_length_if_possible() -> None:
    cluster = dict(zip(PROMPTS, CLUSTERS, strict=True))
    for seed in range(20):
        donors = draw_donors(PROMPTS, CLUSTERS, PROMPTS, None, seed)
        for prompt, donor in zip(PROMPTS, donors, strict=True):
            assert cluster[donor] != cluster[prompt]
            assert len(donor) == len(prompt) or (prompt == (1, 2) and len(donor) > 2)


def test_the_seed_draws_and_nothing_else_does() -> None:
    donors = draw_donors(PROMPTS, CLUSTERS, PROMPTS, None, 0)
    assert donors == draw_donors(PROMPTS, CLUSTERS, PROMPTS[::-1], None, 0)
    assert donors != draw_donors(PROMPTS, CLUSTERS, PROMPTS, None, 1)
    # A prompt keeps its donor whatever else is measured.
    alone = draw_donors(PROMPTS[4:5], CLUSTERS[4:5], PROMPTS, CLUSTERS, 0)
    assert alone == donors[4:5]


def test_no_admissible_donor_names_the_example() -> None:
    with pytest.raises(EngineError, match=r"example 1 \(3 tokens, cluster 'b'\) has no donor"):
        draw_donors([(1, 2), (3, 4, 5)], ["a", "b"], [(3, 4, 6), (1, 2)], ["b", "a"], 0)


def test_unknown_reference_clusters_are_refused() -> None:
    with pytest.raises(EngineError, match="reference prompt 1 is not among the prompts"):
        draw_donors([(1, 2)], ["a"], [(1, 2), (3, 4)], None, 0)


def test_each_purpose_draws_for_itself() -> None:
    resample, other = (
        draw_donors(PROMPTS[:10], CLUSTERS[:10], PROMPTS, CLUSTERS, 0, purpose=purpose)
        for purpose in ("resample", "other")
    )
    assert resample == draw_donors(PROMPTS[:10], CLUSTERS[:10], PROMPTS, CLUSTERS, 0)
    assert resample != other


def test_a_longer_donor_can_be_ruled_out() -> None:
    prompts, clusters = PROMPTS[:10], CLUSTERS[:10]
    exact = draw_donors(prompts, clusters, PROMPTS, CLUSTERS, 0, purpose="other", longer=False)
    assert {len(donor) for donor in exact} == {3}
    with pytest.raises(EngineError, match=r"example 12 .*has no donor \(other\)"):
        draw_donors(PROMPTS, CLUSTERS, PROMPTS, CLUSTERS, 0, purpose="other", longer=False)
