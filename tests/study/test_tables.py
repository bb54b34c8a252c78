"""The study's tables from those of a run: which rows, which columns, which sign.

Run: pytest tests/study/test_tables.py
"""

from pathlib import Path

import pandas
import pytest

from tests.study_files import HEADS, PAIRS, REVERSE, TRIPLET
from tests.synthetic_runs import baseline_rows, make_examples, rows_of
from tinyablation.engine.tables import join_examples
from tinyablation.study.batteries import Asked, parse_battery
from tinyablation.study.tables import HEAD, LAYER, SETS, impact, summary

FILE = Path("battery.json")
SAME = {"run_id": "mine_1", "seed": 0}
METRICS = ["logit_diff", "p_drop"]
N = 8


def made(content) -> Asked:
    return parse_battery(FILE, content).asked(1, 3)


def table(asked: Asked) -> pandas.DataFrame:
    """Figures of the battery's interventions on examples of one split."""
    parts = [baseline_rows(N)]
    for each in asked.battery.interventions:
        columns = each.columns
        heads = "+".join(f"{layer}.{head}" for layer, head in columns.heads)
        rows = rows_of(
            each.label,
            method=columns.method,
            heads=heads,
            layer=columns.layer,
            head=columns.head,
            n=N,
        )
        described = {name: getattr(columns, name) for name in ("granularity", "positions", "donor")}
        parts.append(rows.assign(scale=columns.scale, **described))
    joined = join_examples(pandas.concat(parts, ignore_index=True), make_examples(N))
    return joined.assign(split="train")


def tables(content) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    asked = made(content)
    return impact(parse_battery(FILE, content), asked, table(asked), METRICS, **SAME)


def test_a_head_has_one_row_a_metric_and_the_change_of_its_own_examples():
    heads, layers = tables(HEADS)
    assert tuple(heads.columns) == HEAD and layers.empty and tuple(layers.columns) == SETS
    assert len(heads) == 3 * len(METRICS)
    asked = made(HEADS)
    rows = table(asked).set_index(["intervention", "example"])["logit_diff"]
    change = (rows["zero:0.1"] - rows["baseline"]).mean()
    row = heads[(heads["head"] == 1) & (heads["metric"] == "logit_diff")].iloc[0]
    assert row["value"] == pytest.approx(change)
    assert (row["split"], row["method"], row["run_id"]) == ("train", "zero", "mine_1")


def test_pairs_are_named_by_both_heads():
    heads, _ = tables(PAIRS)
    assert sorted(set(heads["head"])) == ["0-1", "0-2", "1-2"] and set(heads["layer"]) == {0}


def test_groups_stand_in_layer_impact_with_their_label():
    content = {**TRIPLET, "groups": [{"layer": 0, "heads": [2, 0], "label": "ends"}]}
    heads, layers = tables(content)
    assert heads.empty and tuple(heads.columns) == HEAD and tuple(layers.columns) == SETS
    assert set(zip(layers["heads"], layers["label"], layers["layer"], strict=True)) == {
        ("0.0+0.2", "ends", 0)
    }


def test_shams_are_not_in_the_tables_and_their_largest_change_is_in_the_summary():
    heads, layers = tables(REVERSE)
    assert heads.empty and tuple(layers.columns) == LAYER
    assert set(layers["donor"]) == {"pair"} and set(layers["granularity"]) == {"layer_resid"}
    asked = made(REVERSE)
    found = summary(asked, table(asked), METRICS, [0])
    assert found["sham"] == {"largest_change": 0.0} and found["n_interventions"] == 1


def test_a_summary_is_of_all_interventions_over_clusters():
    asked = made(HEADS)
    found = summary(asked, table(asked), METRICS, [3])
    heads, _ = tables(HEADS)
    values = heads[heads["metric"] == "logit_diff"]["value"]
    figure = found["logit_diff"]
    assert figure["mean"] == pytest.approx(values.mean()) and figure["values"] == [figure["mean"]]
    assert figure["ci95"][0] < figure["mean"] < figure["ci95"][1]
    assert (found["n"], found["n_clusters"], found["seeds"]) == (N, N // 2, [3])
    assert set(found) >= {*METRICS} and "acc_flip_rate" not in found
