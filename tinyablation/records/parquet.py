"""Records to and from the bytes of JSON and Parquet files, as plain values (see records.py)."""

import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.files.contents import MOST_BYTES, MOST_VALUES, open_regular, parse_json

if TYPE_CHECKING:
    import pyarrow

# Tables are counted by their metadata before they are read, because a run of equal values takes no
# room in a file, however long it is. Every head of a 70B model on 256 prompts has 40 million cells.
MOST_CELLS = 200_000_000
MOST_UNPACKED = 2**31  # bytes: of those cells in the file (130 MB), and of their text in memory
_MANY_ROWS = 100_000  # with fewer, threads take longer to start than to read


def from_json(data: bytes) -> Any:
    """The value in the bytes of a JSON file; ValueError if they are not JSON or hold NaN."""
    return parse_json(data, finite=True)


def read_parquet(
    source: Path | bytes,
    check: Callable[["pyarrow.Schema"], None],
    *,
    most_cells: int = MOST_CELLS,
    most_bytes: int = MOST_UNPACKED,
) -> "pyarrow.Table":
    """The table in a file, or in the bytes of one; every reader of Parquet uses this.

    check: is called with the columns before any is read, and raises for others than expected.
    Raises ValueError if it is no such table, is not flat or too large, and OSError if there is no
    regular file.
    """
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)
    with stream:
        try:
            found = pyarrow.parquet.read_metadata(stream)
            _require_small(found, most_cells, most_bytes)
            schema = found.schema.to_arrow_schema()
            check(schema)
            words = [field.name for field in schema if _is_text(field)]
            # One file and no folder of them, which pyarrow's read_table expects: half the time.
            file = pyarrow.parquet.ParquetFile(stream, read_dictionary=words, metadata=found)
            table = file.read(use_threads=found.num_rows > _MANY_ROWS)
            return _with_text(table, words, most_bytes)
        except (pyarrow.ArrowException, OSError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"not a readable Parquet file: {said}") from error


def _require_small(found: Any, most_cells: int, most_bytes: int) -> None:
    cells = found.num_rows * found.num_columns
    if not 0 <= cells <= most_cells:
        raise ValueError(
            f"it has {found.num_rows:,} rows of {found.num_columns:,} columns, at most "
            f"{most_cells:,} cells are read"
        )
    unpacked = sum(found.row_group(each).total_byte_size for each in range(found.num_row_groups))
    if not 0 <= unpacked <= most_bytes:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, at most {most_bytes:,} are read")


def _is_text(field: "pyarrow.Field") -> bool:
    import pyarrow

    kind = field.type
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return True
    numbers = (pyarrow.types.is_integer, pyarrow.types.is_floating, pyarrow.types.is_boolean)
    if any(is_kind(kind) for is_kind in numbers):
        return False
    raise ValueError(f"column {field.name!r} holds {kind}, not numbers or text")


def _with_text(table: "pyarrow.Table", words: Collection[str], most: int) -> "pyarrow.Table":
    """The table with its text, read as one copy of each, put into every row that has it.

    One long text in a million rows is short in the file, and in its metadata: counted first.
    """
    import pyarrow
    import pyarrow.compute

    total = 0
    for name in words:
        for chunk in table[name].chunks:
            lengths = pyarrow.compute.binary_length(chunk.dictionary).cast(pyarrow.int64())
            total += pyarrow.compute.sum(lengths.take(chunk.indices)).as_py() or 0
    if total > most:
        raise ValueError(f"its text has {total:,} bytes, at most {most:,} are read")
    for name in words:
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(
            at, field.with_type(field.type.value_type), table[name].cast(field.type.value_type)
        )
    return table


def to_parquet(
    content: Mapping[str, Any],
    descriptions: Mapping[str, str],
    *,
    nested: Collection[str],
    numbers: Collection[str],
    counts: Collection[str],
) -> bytes:
    """The bytes of a Parquet table with a column per description and a row per record.

    Nested values become JSON text. The table's metadata holds schema_version and session (JSON).
    """
    import pyarrow
    import pyarrow.parquet

    kinds = dict.fromkeys(counts, pyarrow.int64()) | dict.fromkeys(numbers, pyarrow.float64())
    fields = [
        pyarrow.field(name, kinds.get(name, pyarrow.string()), metadata={"description": text})
        for name, text in descriptions.items()
    ]
    metadata = {
        "schema_version": str(content["schema_version"]),
        "session": json.dumps(content["session"], allow_nan=False),
    }
    rows = [
        {
            name: json.dumps(value, allow_nan=False) if name in nested else value
            for name, value in record.items()
        }
        for record in content["records"]
    ]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields, metadata=metadata))
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def from_parquet(data: bytes, nested: Collection[str]) -> dict[str, Any]:
    """The content that to_parquet wrote; ValueError if the bytes are not such a table."""
    table = read_parquet(data, lambda schema: None, most_cells=MOST_VALUES, most_bytes=MOST_BYTES)
    metadata = table.schema.metadata or {}
    if b"schema_version" not in metadata or b"session" not in metadata:
        raise ValueError("its metadata lacks schema_version or session")
    rows: Sequence[dict[str, Any]] = table.to_pylist()
    return {
        "schema_version": int(metadata[b"schema_version"]),
        "session": from_json(metadata[b"session"]),
        "records": [
            {
                name: from_json(value.encode()) if name in nested else value
                for name, value in row.items()
            }
            for row in rows
        ],
    }
