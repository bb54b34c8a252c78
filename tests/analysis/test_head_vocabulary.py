"""What heads write, resampled by cluster, against the same figures worked out the long way.

Run: pytest tests/analysis/test_head_vocabulary.py
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic_head_vocabulary import (
    CANDIDATES,
    CLUSTERS,
    COUNTS,
    NAMED,
    VOCAB,
    WORDS,
    make_head_vocabulary,
    own_vector,
)
from tinyablation.analysis.head_vocabulary import (
    HeadVocabulary,
    HeadVocabularyError,
    likeness,
    one_vocabulary,
    shared_tokens,
)
from tinyablation.corpora.lexicons import standardise
from tinyablation.engine.document import Computed

ROOT = Path(__file__).parents[2]
ROUNDING = 1e-9

PLANTED = make_head_vocabulary({NAMED: 2.0})


def without(vocabulary: HeadVocabulary, **changes: object) -> HeadVocabulary:
    document = {**vocabulary.document, **changes}
    document = {key: value for key, value in document.items() if value is not None}
    return HeadVocabulary(Computed(document, vocabulary.tensors))


def test_the_estimate_is_the_documents():
    for head in (NAMED, (1, 7)):
        for lexicon in WORDS:
            found = PLANTED.excess(head, lexicon)
            assert found.estimate == pytest.approx(PLANTED.figures(head, lexicon)["excess"])
            assert found.low < found.estimate < found.high
            assert (found.n, found.n_clusters) == (COUNTS.sum(), CLUSTERS)


def test_a_draw_of_clusters_is_what_its_mean_output_scores():
    """w . words / sqrt(w . spread . w) against standardised logits of the drawn mean."""
    rows = np.random.default_rng(0).integers(CLUSTERS, size=CLUSTERS)
    (weights,) = PLANTED.weights(rows[None])
    counts = np.array([(rows == place).sum() for place in range(CLUSTERS)]) * COUNTS
    assert weights == pytest.approx(counts / counts.sum())
    drawn = weights @ PLANTED.tensors[f"clusters.logits.{NAMED[0]}.{NAMED[1]}"]
    score = standardise(drawn[None], CANDIDATES)[0, WORDS["hedges"].ids].mean()
    place = PLANTED.place(NAMED)
    spread = PLANTED.tensors["clusters.spread"][place]
    words = PLANTED.tensors["clusters.hedges"][place]
    assert words @ weights / np.sqrt(weights @ spread @ weights) == pytest.approx(score)


def test_a_score_is_the_heads_own_whatever_others_write():
    """Its estimate is the document's; hedges in all other heads lower the excess, not the score."""
    others = {(n, m): 2.0 for n in (0, 1) for m in range(8)}
    alone, among = PLANTED, make_head_vocabulary(others)
    for vocabulary in (alone, among):
        found = vocabulary.score(NAMED, "hedges")
        assert found.estimate == pytest.approx(vocabulary.figures(NAMED, "hedges")["score"])
        assert found.low < found.estimate < found.high
        assert (found.n, found.n_clusters) == (COUNTS.sum(), CLUSTERS)
    assert among.score(NAMED, "hedges").estimate == alone.score(NAMED, "hedges").estimate
    assert among.excess(NAMED, "hedges").high < 1 < alone.excess(NAMED, "hedges").low


def test_a_head_that_writes_the_same_in_each_prompt_has_a_score_without_width():
    same = make_head_vocabulary({NAMED: 2.0})
    place = same.place(NAMED)
    tensors = {name: values.copy() for name, values in same.tensors.items()}
    tensors["clusters.hedges"][place], tensors["clusters.spread"][place] = 1.5, 1.0
    found = HeadVocabulary(Computed(same.document, tensors)).score(NAMED, "hedges")
    assert found == (1.5, 1.5, 1.5, COUNTS.sum(), CLUSTERS)


def test_listed_words_are_those_that_the_head_writes_most():
    assert set(PLANTED.listed(NAMED, "hedges")) <= set(WORDS["hedges"].words)
    own = own_vector(1001)
    own[:2] += 50.0
    assert sorted(make_head_vocabulary(writes={NAMED: own}).listed(NAMED, "hedges")) == ["h0", "h1"]
    assert make_head_vocabulary({NAMED: -2.0}).listed(NAMED, "hedges") == ()


def test_the_interval_is_as_wide_as_clusters_differ():
    narrow, wide = (
        make_head_vocabulary({NAMED: 2.0}, hedging_spread=size).excess(NAMED, "hedges")
        for size in (0.1, 1.0)
    )
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_the_same_seed_gives_the_same_interval():
    assert PLANTED.excess(NAMED, "hedges") == make_head_vocabulary({NAMED: 2.0}).excess(
        NAMED, "hedges"
    )


def test_a_lead_is_over_the_best_of_the_layer_only():
    both = make_head_vocabulary({NAMED: 1.0, (0, 5): 2.0, (1, 0): 3.0})
    lead = both.lead(NAMED, "hedges")
    own, best = (both.figures(head, "hedges")["excess"] for head in (NAMED, (0, 5)))
    assert lead.estimate == pytest.approx(own - best) and lead.high < 0
    assert [both.layer_rank(head, "hedges") for head in (NAMED, (0, 5), (1, 0))] == [2, 1, 1]


def test_what_a_reading_has_not_is_refused():
    with pytest.raises(HeadVocabularyError, match="has no head 7:0"):
        PLANTED.excess((7, 0), "hedges")
    with pytest.raises(HeadVocabularyError, match="no lexicon 'swear words'"):
        PLANTED.blocked("swear words")
    with pytest.raises(HeadVocabularyError, match="no logits by cluster of head 1:1"):
        PLANTED.logits((1, 1))
    with pytest.raises(HeadVocabularyError, match="has no clusters"):
        _ = without(PLANTED, clusters=None).clusters


# --- two heads -----------------------------------------------------------------------------------

SAME = own_vector(1001)
ONE = make_head_vocabulary(model="one", writes={NAMED: SAME}, seed=1)
TWIN = make_head_vocabulary(model="twin", writes={NAMED: SAME}, seed=1)  # of the same weights
ALIKE = make_head_vocabulary(model="alike", writes={NAMED: SAME}, seed=2)
OTHER = make_head_vocabulary(model="other", seed=3)
FOREIGN = {
    name: each._replace(words=tuple(f"x{word}" for word in each.words))
    for name, each in WORDS.items()
}


def test_heads_that_write_the_same_are_alike():
    found = likeness(ONE, NAMED, ALIKE, NAMED)
    assert found.estimate.estimate > 0.9 and found.estimate.low > 0.8
    assert found.n == 30 and found.p == pytest.approx(1 / 31)


def test_two_heads_that_write_the_same_are_alike_without_width():
    alike, shared = (
        compare(ONE, NAMED, TWIN, NAMED).estimate for compare in (likeness, shared_tokens)
    )
    assert alike[:3] == pytest.approx((1, 1, 1))
    # Tokens whose text no list has count against the lower end.
    assert shared.estimate == shared.high == 1 and shared.low > 0.8
    assert alike.n_clusters == shared.n_clusters == len(ONE.clusters)


def test_heads_are_not_alike_for_the_axis_that_all_share():
    """Every head writes mostly along one axis: raw cosines are near 1 or -1, and say nothing."""
    found = likeness(ONE, NAMED, OTHER, NAMED)
    assert abs(found.raw) > 0.8
    assert abs(found.estimate.estimate) < 0.2 and found.p > 0.05


def test_opposite_heads_are_not_alike():
    turned = make_head_vocabulary(model="turned", writes={NAMED: -SAME}, seed=2)
    found = likeness(ONE, NAMED, turned, NAMED)
    assert found.estimate.estimate < -0.9 and found.p > 0.9
    assert found.estimate.low <= found.estimate.estimate <= found.estimate.high


def test_the_estimate_is_the_cosine_of_the_mean_logits():
    found = likeness(ONE, NAMED, ALIKE, NAMED).estimate
    vectors = [
        np.concatenate([each.tensors[f"logits.{layer}"] for layer in (0, 1)])
        for each in (ONE, ALIKE)
    ]
    vectors = [rows - rows.mean(axis=1, keepdims=True) for rows in vectors]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]
    axis = np.linalg.svd(np.concatenate(units), full_matrices=False)[2][0]
    a, b = (rows[2] - rows[2] @ axis * axis for rows in vectors)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert found.estimate == pytest.approx(expected, abs=ROUNDING)


def test_shared_tokens_need_no_vocabulary_in_common():
    one, alike, other, foreign = (
        make_head_vocabulary(model=name, writes={NAMED: vector}, axis=0.0, seed=seed, **options)
        for seed, (name, vector, options) in enumerate(
            [
                ("one", SAME, {}),
                ("alike", SAME, {}),
                ("other", own_vector(1002), {}),
                ("foreign", SAME, {"tokenizer": "u" * 64, "texts": " x", "words": FOREIGN}),
            ]
        )
    )
    found = shared_tokens(one, NAMED, alike, NAMED)
    assert found.estimate.low > 0.5 and found.n == 30 and found.p == pytest.approx(1 / 31)
    assert shared_tokens(one, NAMED, other, NAMED).estimate.high < 0.3
    assert one_vocabulary(one, alike) and not one_vocabulary(one, foreign)
    estimate, p, n = shared_tokens(one, NAMED, foreign, NAMED)
    assert (estimate.estimate, estimate.low, p, n) == (0.0, 0.0, 1.0, 30)
    assert estimate.high < 0.1


def test_logits_of_every_layer_are_needed():
    tensors = {name: each for name, each in ONE.tensors.items() if name != "logits.1"}
    with pytest.raises(HeadVocabularyError, match="no logits of layer 1"):
        likeness(HeadVocabulary(Computed(dict(ONE.document), tensors)), NAMED, ALIKE, NAMED)


def test_no_torch_is_needed():
    code = (
        "import sys, tinyablation.analysis.head_vocabulary, tinyablation.analysis.steering; "
        "import claims.suppressors.test_ov, "
        "claims.suppressors.test_steering, tinyablation.plugin.head_fixtures; "
        "assert not {'torch', 'transformers', 'pandas', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_token_whose_text_no_list_has_widens_the_share_of_both_ends():
    """Draws bring in tokens beyond the lists; if all texts are known, only draws move the ends."""
    one, other = (
        make_head_vocabulary(
            model=name, axis=0.0, seed=seed, tokenizer=name, writes={NAMED: SAME}, spread=2.0
        )
        for seed, name in enumerate(("one", "other"))
    )
    some = shared_tokens(one, NAMED, other, NAMED).estimate
    for each in (one, other):
        listed = {
            token["token_id"]
            for row in each.document["heads"]
            for token in (*row["tokens"]["top"], *row["tokens"]["bottom"])
        }
        rest = [n for n in range(VOCAB) if n not in listed]
        each.document["heads"][0]["static"]["tokens"]["bottom"] += [
            {"token_id": n, "token": f" w{n}", "logit": 0.0} for n in rest
        ]
    every = shared_tokens(one, NAMED, other, NAMED).estimate
    assert some.estimate == every.estimate
    assert some.low <= every.low < every.estimate < every.high <= some.high
