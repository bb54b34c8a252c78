"""Which pairs are patched: none that have their mirror in the corpus.

Run: pytest tests/analysis/test_findings.py
"""

from types import SimpleNamespace

import pytest

from tinyablation.analysis.findings import Findings, MirroredPairs
from tinyablation.interventions.batteries import PATCHED, PATCHED_UNKNOWN


def bench(*, mirrored: float, unknown: dict[str, int]):
    """unknown: how many clusters of each split have prompts about unknown things."""
    rows = [(split, f"{split} {n}") for split, count in unknown.items() for n in range(count)]
    corpus = SimpleNamespace(
        examples=[SimpleNamespace(cluster_id=name) for _, name in rows for _ in range(3)]
    )

    def sampled(condition, sample, *, aligned):
        assert sample == PATCHED_UNKNOWN and aligned
        return {3 * n + k: split for n, (split, _) in enumerate(rows) for k in range(3)}

    return SimpleNamespace(
        sampling=SimpleNamespace(mirrored=lambda condition, sample: mirrored),
        rows=sampled,
        corpus=lambda condition: (corpus, None),
    )


ENOUGH = {"discovery": 2, "confirmation": 2}
FEW = {"discovery": 9, "confirmation": 1}


@pytest.mark.parametrize(
    ("condition", "mirrored", "unknown", "sample"),
    [
        ("facts", 1.0, ENOUGH, PATCHED_UNKNOWN),
        ("facts", 0.0, ENOUGH, PATCHED_UNKNOWN),  # the same kind of pairs in every condition
        ("logic", 0.0, FEW, PATCHED),
        ("my-own", 0.0, ENOUGH, PATCHED),  # the user's corrupt prompts, if they can be judged
        ("my-own", 0.1, ENOUGH, PATCHED_UNKNOWN),
    ],
)
def test_pairs_without_a_mirror_are_patched(condition, mirrored, unknown, sample):
    made = Findings(bench(mirrored=mirrored, unknown=unknown))
    assert made._patched_pairs(condition) == sample


@pytest.mark.parametrize("condition", ["facts", "my-own"])
def test_mirrored_pairs_without_others_are_refused_with_their_share(condition):
    made = Findings(bench(mirrored=0.25, unknown=FEW))
    with pytest.raises(MirroredPairs, match="25% of the pairs have their mirror"):
        made._patched_pairs(condition)
