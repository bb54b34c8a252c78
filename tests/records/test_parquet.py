"""Tables are counted by their metadata before they are read.

Run: pytest tests/records/test_parquet.py
"""

import io
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinyablation.records.parquet import read_parquet

MEGABYTES = 300


def written(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


def refused(source: Path | bytes, said: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=said):
        read_parquet(source, lambda schema: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a megabyte with 60 million rows of four columns."""
    path = tmp_path_factory.mktemp("long") / "long.parquet"
    part = pa.table({name: pa.array([0.0] * 1_000_000) for name in "abcd"})
    with pq.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(60):
            writer.write_table(part, row_group_size=1_000_000)
    assert path.stat().st_size < 1_200_000
    return path


def test_sixty_million_rows_are_not_read(long: Path) -> None:
    refused(long, "it has 60,000,000 rows of 4 columns, at most 200,000,000 cells are read")
    refused(long.read_bytes(), "it has 60,000,000 rows")


def test_one_long_text_in_every_row_is_not_copied(tmp_path: Path) -> None:
    """A megabyte, 2,000 times: in the file and its metadata it stands once."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), ["x" * 2**20])
    path = tmp_path / "words.parquet"
    pq.write_table(pa.table({"a": words}), path, store_schema=False)
    whole = pq.ParquetFile(path).metadata
    assert path.stat().st_size < 2**21 and whole.row_group(0).total_byte_size < 2**22
    with pytest.raises(ValueError, match=r"its text has 2,097,152,000 bytes, at most 1,000"):
        read_parquet(path, lambda schema: None, most_bytes=1_000_000_000)


def test_columns_are_checked_before_any_is_read(long: Path, tmp_path: Path) -> None:
    nested = written(tmp_path / "n.parquet", a=pa.array([[1]]))
    with pytest.raises(ValueError, match="column 'a' holds list<.*, not numbers or text"):
        read_parquet(nested, lambda schema: None)

    def check(schema: pa.Schema) -> None:
        raise KeyError(schema.names[0])

    with pytest.raises(KeyError):
        read_parquet(nested, check)


def test_text_and_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", None, "é", "x"], "b": [1, 2, 3, 4], "c": [0.5, None, 1.0, 2.0]})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    for source in (
        stream.getvalue(),
        written(tmp_path / "t.parquet", **dict(zip("abc", table, strict=True))),
    ):
        assert read_parquet(source, lambda schema: None).to_pydict() == table.to_pydict()
