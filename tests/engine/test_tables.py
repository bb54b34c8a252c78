"""Run: pytest tests/engine/test_tables.py"""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.synthetic_runs import baseline_rows, make_examples, obtain
from tinyablation.engine import tables
from tinyablation.engine.tables import COLUMNS, ENGINE_COLUMNS, METRICS, check_examples
from tinyablation.errors import RunError
from tinyablation.runs.store import TABLES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return obtain(tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("name", TABLES)
def test_every_column_of_every_table_is_documented_inside_the_file(run, name):
    schema = pq.read_schema(run.path / name)
    note = json.loads(schema.metadata[tables.METADATA_KEY])["columns"]
    assert set(schema.names) <= set(note)
    for field in schema:
        assert note[field.name]["meaning"] == COLUMNS[field.name].meaning
        assert field.metadata[b"meaning"].decode() == COLUMNS[field.name].meaning
        assert field.type == pa.type_for_alias(COLUMNS[field.name].dtype)


def test_no_documented_column_is_dead():
    used = {*tables.PER_EXAMPLE_COLUMNS, *tables.HEAD_MATRIX_COLUMNS}
    assert used == set(COLUMNS)


@pytest.mark.parametrize("column", [*COLUMNS.values(), *METRICS.values()])
def test_documentation_says_something(column):
    assert column.meaning
    assert column.unit or column.dtype in ("string", "int64")


def test_the_metrics_of_the_long_form_are_documented(run):
    note = json.loads(pq.read_schema(run.path / TABLES[0]).metadata[tables.METADATA_KEY])
    found = set(run.head_impact()["metric"])
    assert found == set(METRICS)
    assert {f"value[{metric}]" for metric in found} <= set(note["columns"])


@pytest.mark.parametrize("name", TABLES)
def test_plain_pandas_reads_the_tables(run, name):
    frame = pd.read_parquet(run.path / name)
    assert not frame.isna().any().any()
    assert isinstance(frame.index, pd.RangeIndex)


def test_tables_survive_the_round_trip_exactly(tmp_path):
    rows = baseline_rows()
    tables.write_table(tmp_path / "t.parquet", rows, ENGINE_COLUMNS)
    back = tables.read_table(tmp_path / "t.parquet", ENGINE_COLUMNS)
    pd.testing.assert_frame_equal(back, rows[list(ENGINE_COLUMNS)], check_exact=True)


def test_a_table_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    baseline_rows().drop(columns="kl").to_parquet(path)
    with pytest.raises(RunError, match="kl"):
        tables.read_table(path, ENGINE_COLUMNS)
    baseline_rows().astype({"layer": "float64"}).to_parquet(path)
    with pytest.raises(RunError, match="layer"):
        tables.read_table(path, ENGINE_COLUMNS)
    with pytest.raises(RunError, match="does not fit"):
        tables.write_table(path, baseline_rows().assign(layer="x"), ENGINE_COLUMNS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda frame: frame.drop(columns="cell"), "cell"),
        (lambda frame: frame.assign(corrupt="x"), "corrupt"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: frame.set_index(frame.index + 1), "indexed 0"),
        (
            lambda frame: frame.assign(cluster_id=""),
            "row 0, column 'cluster_id' is empty",
        ),
        (lambda frame: frame.assign(fact_id=None), "row 0, column 'fact_id'"),
        (lambda frame: frame.assign(split="all"), "all"),
    ],
    ids=[
        "no-cell",
        "corrupt",
        "no-rows",
        "index",
        "empty-cluster",
        "null-fact",
        "split-all",
    ],
)
def test_examples_that_cannot_be_judged_are_refused(change, match):
    with pytest.raises(RunError, match=match):
        check_examples(change(make_examples()))


def test_the_digest_of_examples_sees_content_and_order_of_rows_only():
    examples = make_examples()
    assert check_examples(examples) == check_examples(examples[examples.columns[::-1]])
    swapped = examples.iloc[::-1].reset_index(drop=True)
    assert check_examples(examples) != check_examples(swapped)
