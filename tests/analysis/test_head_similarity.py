"""Run: pytest tests/analysis/test_head_similarity.py"""

import json
from typing import Any

import numpy as np
import pytest

from tests.synthetic_runs import make_config
from tinyablation.analysis.head_similarity import ComparisonError, cluster_tokens, compare
from tinyablation.engine.document import Computed
from tinyablation.runs.documents import obtain_reading
from tinyablation.runs.store import RunStore

VOCABULARY = [f" w{id}" for id in range(40)]
N_HEADS = 4
TOP_K = 5


def make_logits(seed: int, n_layers: int = 2) -> np.ndarray:
    shape = (n_layers, N_HEADS, len(VOCABULARY))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_report(
    model: str,
    logits: np.ndarray,
    *,
    condition: str = "facts",
    tokenizer: str = "t" * 64,
    vectors: bool = True,
    texts: list[str] = VOCABULARY,
    top_k: int = TOP_K,
) -> Computed:
    heads = []
    for layer, rows in enumerate(logits):
        for head, row in enumerate(rows):
            tokens = {
                end: [
                    {"token_id": int(id), "token": texts[id], "logit": float(row[id])}
                    for id in np.argsort(-sign * row)[:top_k]
                ]
                for end, sign in (("top", 1), ("bottom", -1))
            }
            heads.append({"layer": layer, "head": head, "tokens": tokens})
    document = {"model": model, "condition": condition, "tokenizer_hash": tokenizer, "heads": heads}
    tensors = {f"logits.{layer}": rows for layer, rows in enumerate(logits)} if vectors else {}
    return Computed(document, tensors)


A, B = make_report("a", make_logits(0)), make_report("b", make_logits(1))


def row_of(table: Any, a: tuple, b: tuple) -> Any:
    """The one row of this pair of (model, layer, head)."""
    chosen = table
    for side, (model, layer, head) in (("a", a), ("b", b)):
        chosen = chosen[
            (chosen[f"model_{side}"] == model)
            & (chosen[f"layer_{side}"] == layer)
            & (chosen[f"head_{side}"] == head)
        ]
    assert len(chosen) == 1
    return chosen.iloc[0]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.astype(float), other.astype(float))[0, 1])


# --- compare -------------------------------------------------------------------------------------


def test_every_pair_stands_there_once():
    table = compare([A, B])
    n = 2 * 2 * N_HEADS
    assert len(table) == n * (n - 1) // 2
    sides = [
        table[[f"{name}_{side}" for name in ("model", "condition", "layer", "head")]].agg(
            tuple, axis=1
        )
        for side in "ab"
    ]
    assert len({frozenset(pair) for pair in zip(*sides, strict=True)}) == len(table)


def test_one_vocabulary_is_compared_by_logit_vectors():
    row = row_of(compare([A, B]), ("a", 0, 1), ("b", 1, 2))
    assert row.comparison == "cosine"
    expected = cosine(A.tensors["logits.0"][1], B.tensors["logits.1"][2])
    assert row.cosine == pytest.approx(expected)


def test_a_shift_of_all_logits_is_not_seen():
    logits = make_logits(0)
    shifted = make_report("b", 2 * logits + 30)
    row = row_of(compare([A, shifted]), ("a", 1, 3), ("b", 1, 3))
    assert row.cosine == pytest.approx(1)
    assert row.shared_top == row.shared_bottom == 1


def test_the_shared_share_is_jaccards():
    logits = np.tile(np.arange(40, 0, -1.0), (1, 2, 1)).astype(np.float32)
    logits[0, 1, 0] = -1  # the first of the top leaves for the bottom
    row = compare([make_report("a", logits)]).iloc[0]
    assert row.shared_top == pytest.approx(4 / 6)
    assert row.shared_bottom == pytest.approx(4 / 6)


@pytest.mark.parametrize("why", ["another tokenizer", "no vectors", "no hash"])
def test_without_a_common_vocabulary_only_tokens_are_compared(why):
    other = make_report(
        "b",
        make_logits(1),
        tokenizer="u" * 64 if why == "another tokenizer" else "t" * 64,
        vectors=why != "no vectors",
    )
    if why == "no hash":
        del other.document["tokenizer_hash"]
    table = compare([A, other])
    across = table[table["model_a"] != table["model_b"]]
    assert set(across["comparison"]) == {"tokens"}
    assert across["cosine"].isna().all()
    assert across["shared_top"].between(0, 1).all()
    within = table[(table["model_a"] == "a") & (table["model_b"] == "a")]
    assert set(within["comparison"]) == {"cosine"} and within["cosine"].notna().all()
    # Not there is <NA> and not NaN, which any arithmetic would carry along unseen.
    assert str(table["cosine"].dtype) == "Float64"
    assert json.loads(across.to_json(orient="records"))[0]["cosine"] is None


def test_lists_are_cut_to_the_shortest():
    long = make_report("b", make_logits(0), top_k=3 * TOP_K)
    assert row_of(compare([A, long]), ("a", 0, 0), ("b", 0, 0)).shared_top == 1


def test_heads_can_be_chosen_by_model():
    table = compare([A, B], heads={"a": [(0, 1)], "b": [(1, 1), (1, 2)]})
    assert len(table) == 3
    row_of(table, ("a", 0, 1), ("b", 1, 2))
    with pytest.raises(ComparisonError, match="report on a has no head 7:0"):
        compare([A, B], heads={"a": [(7, 0)]})
    with pytest.raises(ComparisonError, match=r"1 head\(s\) given"):
        compare([A, B], heads={"a": [(0, 1)]})


def test_conditions_of_one_model_are_told_apart_and_one_twice_is_refused():
    other = make_report("a", make_logits(2), condition="logic")
    assert set(compare([A, other])["condition_b"]) == {"facts", "logic"}
    with pytest.raises(ComparisonError, match="a, facts, head 0:0 is given twice"):
        compare([A, A])


def test_readings_and_documents_are_taken_too(tmp_path):
    config = make_config(model="a", battery="ov")
    reading = obtain_reading(RunStore(tmp_path), config, lambda: A)
    table = compare([reading, B])
    assert table.equals(compare([A, B]))
    without = compare([A.document, B.document])
    assert set(without["comparison"]) == {"tokens"}
    assert list(without["shared_top"]) == list(table["shared_top"])


def test_a_head_that_writes_nothing_and_what_is_no_report_are_refused():
    logits = make_logits(0)
    logits[1, 2] = 3.0
    with pytest.raises(ComparisonError, match=r"b, facts, head 1:2 writes nothing"):
        compare([A, make_report("b", logits)])
    with pytest.raises(ComparisonError, match="not an OV report: KeyError"):
        compare([A, {"heads": [{"layer": 0}]}])


# --- clusters ------------------------------------------------------------------------------------


def test_tokens_are_counted_by_head():
    found = cluster_tokens([A, B], limit=7, top_n=3)
    assert json.loads(json.dumps(found)) == found
    assert (found["limit"], found["top_n"], found["n_heads"]) == (7, 3, 16)
    for end, sign in (("top", 1), ("bottom", -1)):
        entries = found[end]
        assert len(entries) == 7
        counts = [entry["count"] for entry in entries]
        assert counts == sorted(counts, reverse=True) and counts[0] > 1
        for entry in entries:
            owners = [
                {"model": name, "condition": "facts", "layer": layer, "head": head}
                for name, report in (("a", A), ("b", B))
                for layer in range(2)
                for head in range(N_HEADS)
                if VOCABULARY.index(entry["token"])
                in np.argsort(-sign * report.tensors[f"logits.{layer}"][head])[:3]
            ]
            assert entry["heads"] == owners and entry["count"] == len(owners)


def test_one_text_of_two_tokens_counts_once_a_head():
    texts = [" same"] * 40
    found = cluster_tokens([make_report("a", make_logits(0), texts=texts)], top_n=TOP_K)
    assert found["top"][0]["count"] == found["n_heads"] == 8 and len(found["top"]) == 1


def test_equally_frequent_tokens_come_by_text():
    found = cluster_tokens([A], heads={"a": [(0, 0)]}, top_n=TOP_K)
    texts = [entry["token"] for entry in found["top"]]
    assert texts == sorted(texts) and len(texts) == TOP_K


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"top_n": 0}, "top_n is 0"),
        ({"top_n": TOP_K + 1}, r"a, facts, head 0:0 has lists of 5 tokens, fewer than top_n = 6"),
        ({"heads": {}}, "no head given"),
    ],
)
def test_what_cannot_be_counted_is_refused(options, said):
    with pytest.raises(ComparisonError, match=said):
        cluster_tokens([A], **{"top_n": TOP_K, **options})
