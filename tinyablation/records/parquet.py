"""Records to and from the bytes of JSON and Parquet files, as plain values (see records.py)."""

import io
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def from_json(data: bytes) -> Any:
    """The value in the bytes of a JSON file; ValueError if they are not JSON or hold NaN."""

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}, which is not a finite number")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


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
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
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
