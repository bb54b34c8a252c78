"""The tables of a run: their columns, the meaning of each, and their checks.

COLUMNS documents every column of every table and is stored in each Parquet file (schema metadata
under "tinyablation", and per field), so that a table is self-explanatory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tinyablation.errors import RunError
from tinyablation.files.hashes import digest
from tinyablation.files.manifests import write_atomic
from tinyablation.records.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = b"tinyablation"
BASELINE = "baseline"


class Column(NamedTuple):
    """The type, unit and meaning of a column."""

    dtype: Literal["string", "int64", "float64"]
    unit: str
    meaning: str


ENGINE_COLUMNS = (
    *("intervention", "method", "heads", "layer", "head", "scale"),
    *("granularity", "window", "positions", "donor", "example"),
    *("logit_diff", "target_logit", "foil_logit", "target_probability", "target_rank"),
    *("argmax", "kl", "entropy", "seq_logprob_diff", "seq_probability", "seq_kl_mean"),
)
EXAMPLE_COLUMNS = (
    *(
        "split",
        "fact_id",
        "cluster_id",
        "template_id",
        "cell",
        "clean",
        "target",
        "foil",
    ),
)
PER_EXAMPLE_COLUMNS = (*ENGINE_COLUMNS, *EXAMPLE_COLUMNS)
HEAD_IMPACT_COLUMNS = (
    *("run_id", "seed", "layer", "head", "scale", "metric", "value"),
    *("method", "split", "positions", "donor"),
)
LAYER_IMPACT_COLUMNS = (
    *("run_id", "seed", "layer", "granularity", "metric", "value"),
    *("intervention", "method", "split", "scale", "window", "positions", "donor", "heads"),
)
HEAD_MATRIX_COLUMNS = (*HEAD_IMPACT_COLUMNS, "condition")
LAYER_MATRIX_COLUMNS = (*LAYER_IMPACT_COLUMNS, "condition")

COLUMNS: dict[str, Column] = {
    "intervention": Column("string", "", 'label of what was done; "baseline": nothing'),
    "method": Column("string", "", 'how heads were ablated, or what was patched; "none": baseline'),
    "heads": Column("string", "", 'heads acted on, layer.head joined by "+"; "": none'),
    "layer": Column(
        "int64",
        "index from 0",
        "layer of the one head acted on, centre of the window, layer steered, or receiver of the "
        "path; -1: none or several",
    ),
    "head": Column(
        "int64", "index from 0", "the one head acted on, within the layer; -1: none or several"
    ),
    "scale": Column(
        "float64",
        "factor",
        "factor on the head's output (0: replaced, 1: untouched), on the direction or noise added",
    ),
    "granularity": Column(
        "string", "", 'head, residual, attention, mlp, embedding, path or steer; "": baseline'
    ),
    "window": Column("int64", "layers", "layers patched on either side of `layer`; 0: none"),
    "positions": Column(
        "string",
        "",
        "tokens acted on: all, last or subject; the one restored, by its place to the subject; "
        '"": baseline',
    ),
    "donor": Column("string", "", 'who lent activations: pair, self or other; "": not patched'),
    "example": Column("int64", "index from 0", "row of the corpus"),
    "logit_diff": Column("float64", "logits", "logit(target) - logit(foil) at the last token"),
    "target_logit": Column("float64", "logits", "logit of the target token"),
    "foil_logit": Column("float64", "logits", "logit of the foil token"),
    "target_probability": Column("float64", "probability", "softmax probability of the target"),
    "target_rank": Column("int64", "rank", "tokens with a larger logit than the target; 0: top"),
    "argmax": Column("int64", "token id", "token with the largest logit"),
    "kl": Column("float64", "nats", "KL(clean || ablated) over the vocabulary; 0 at baseline"),
    "entropy": Column("float64", "nats", "entropy of the output distribution"),
    "seq_logprob_diff": Column(
        "float64", "nats", "log p(target) - log p(foil); logit_diff for answers of one token"
    ),
    "seq_probability": Column(
        "float64", "probability", "probability of the whole target; P(target) for one token"
    ),
    "seq_kl_mean": Column(
        "float64", "nats", "mean KL(clean || ablated) over the target's tokens; kl for one token"
    ),
    "split": Column("string", "", 'discovery or confirmation; "all" where both are pooled'),
    "fact_id": Column("string", "", "fact the example asks for"),
    "cluster_id": Column("string", "", "unit of the clustered bootstrap"),
    "template_id": Column("string", "", "template that rendered the prompt"),
    "cell": Column("string", "", "cell of the design, e.g. truth x operator"),
    "clean": Column("string", "text", "the prompt"),
    "target": Column("string", "text", "right continuation (one token)"),
    "foil": Column("string", "text", "wrong continuation (one token)"),
    "run_id": Column("string", "", "name of the single-condition run directory"),
    "seed": Column("int64", "", "seed of the run"),
    "metric": Column("string", "", "name of the figure in `value`; see METRICS"),
    "value": Column("float64", "see metric", "mean of the metric over the examples of the split"),
    "condition": Column("string", "", "condition of the single run"),
}

METRICS: dict[str, Column] = {
    "logit_diff": Column("float64", "logits", "LD ablated - LD clean; positive: a suppressor"),
    "kl_div": Column("float64", "nats", "KL(clean || ablated)"),
    "p_drop": Column("float64", "probability", "P(target) clean - P(target) ablated"),
    "acc_flip_rate": Column("float64", "share", "argmax is not the clean argmax of the example"),
    "rank_change": Column("float64", "ranks", "rank ablated - rank clean; positive: target sank"),
    "seq_logprob_diff": Column("float64", "nats", "seq_logprob_diff ablated - clean"),
    "seq_p_drop": Column("float64", "probability", "P(whole target) clean - ablated"),
    "seq_kl_mean": Column("float64", "nats", "mean KL(clean || ablated) over the target's tokens"),
}


def documentation(
    names: Sequence[str], columns: Mapping[str, Column] = COLUMNS
) -> dict[str, dict[str, str]]:
    """Column -> {unit, meaning}, plus the metrics if the table is long-form over `metric`."""
    documented = {
        name: {"unit": columns[name].unit, "meaning": columns[name].meaning} for name in names
    }
    if "metric" in names:
        for metric, column in METRICS.items():
            documented[f"value[{metric}]"] = {
                "unit": column.unit,
                "meaning": column.meaning,
            }
    return documented


def write_table(
    path: Path,
    frame: pd.DataFrame,
    names: Sequence[str],
    columns: Mapping[str, Column] = COLUMNS,
    *,
    durable: bool = True,
) -> None:
    """Write exactly the named columns, in this order, as a documented Parquet file, atomically.

    columns: what each of them is; durable: as in write_atomic.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        pa.field(
            name,
            pa.type_for_alias(columns[name].dtype),
            metadata={"unit": columns[name].unit, "meaning": columns[name].meaning},
        )
        for name in names
    )
    try:
        table = pa.Table.from_pandas(frame[list(names)], schema=schema, preserve_index=False)
    except (pa.ArrowException, KeyError) as error:
        raise RunError(f"{path}: the table does not fit its columns: {error}") from error
    note = json.dumps({"columns": documentation(names, columns)}, ensure_ascii=False).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: note})
    write_atomic(
        path, lambda handle: pq.write_table(table, handle, compression="zstd"), durable=durable
    )


def read_table(path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Read a table; RunError unless it has exactly these columns with their types."""
    import pyarrow as pa

    def check(schema: pa.Schema) -> None:
        found = {field.name: str(field.type) for field in schema}
        expected = {name: str(pa.type_for_alias(COLUMNS[name].dtype)) for name in names}
        if found != expected or schema.names != list(names):
            wrong = sorted(set(found.items()) ^ set(expected.items())) or "their order"
            raise RunError(f"{path}: columns are not those of this table; differing: {wrong}")

    try:
        return read_parquet(path, check).to_pandas(ignore_metadata=True)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def check_examples(examples: pd.DataFrame) -> str:
    """Check the examples of a run (indexed 0..n-1) and return their digest (64 hex digits)."""
    columns = list(examples.columns)
    if sorted(columns) != sorted(EXAMPLE_COLUMNS):
        missing = sorted(set(EXAMPLE_COLUMNS) - set(columns))
        unknown = sorted(set(columns) - set(EXAMPLE_COLUMNS))
        raise RunError(f"examples: columns missing {missing}, not known {unknown}")
    if len(examples) == 0:
        raise RunError("examples: no rows; there is nothing to measure")
    if list(examples.index) != list(range(len(examples))):
        raise RunError(f"examples: must be indexed 0..{len(examples) - 1} in order (reset_index)")
    ordered = examples[list(EXAMPLE_COLUMNS)]
    # As lists: iterating over a column of a frame takes five times as long, and every run does it.
    texts = {name: ordered[name].tolist() for name in EXAMPLE_COLUMNS}
    for name, column in texts.items():
        for row, value in enumerate(column):
            if not isinstance(value, str):
                raise RunError(f"examples: row {row}, column {name!r}: {value!r} is not text")
            if not value and name in ("split", "fact_id", "cluster_id"):
                raise RunError(f"examples: row {row}, column {name!r} is empty")
    if "all" in texts["split"]:
        raise RunError('examples: "all" cannot name a split; it stands for all of them together')
    return digest([list(row) for row in zip(*texts.values(), strict=True)])


def check_rows(rows: pd.DataFrame, labels: Sequence[str], n_examples: int, where: str) -> None:
    """Check that engine rows hold exactly one finite row per (label, example).

    Raises RunError, which names `where`, the intervention, the example and the column.
    """
    import numpy as np
    import pandas as pd

    if sorted(rows.columns) != sorted(ENGINE_COLUMNS):
        wrong = sorted(set(rows.columns) ^ set(ENGINE_COLUMNS))
        raise RunError(f"{where}: columns missing or not known: {wrong}")
    for name in ENGINE_COLUMNS:
        dtype = COLUMNS[name].dtype
        if dtype == "int64" and not pd.api.types.is_integer_dtype(rows[name]):
            raise RunError(f"{where}: column {name!r} is {rows[name].dtype}, not integer")
        if dtype == "float64":
            # fp32 columns would mean that computed figures were rounded.
            if rows[name].dtype != np.float64:
                raise RunError(f"{where}: column {name!r} is {rows[name].dtype}, not float64")
            broken = np.flatnonzero(~np.isfinite(rows[name].to_numpy()))
            if broken.size:
                row = rows.iloc[int(broken[0])]
                raise RunError(
                    f"{where}: {name} is {row[name]} for {row['intervention']}, example "
                    f"{row['example']} ({broken.size} such figures); every figure must be finite"
                )
    found, expected = set(rows["intervention"]), set(labels)
    if found != expected:
        raise RunError(
            f"{where}: interventions missing {sorted(expected - found)}, "
            f"unasked {sorted(found - expected)}"
        )
    if rows.duplicated(["intervention", "example"]).any():
        twice = rows[rows.duplicated(["intervention", "example"])].iloc[0]
        raise RunError(f"{where}: {twice['intervention']}, example {twice['example']} occurs twice")
    inside = rows["example"].between(0, n_examples - 1).all()
    if not inside or len(rows) != len(expected) * n_examples:
        raise RunError(
            f"{where}: {len(rows)} rows for {len(expected)} interventions x {n_examples} examples"
        )


def join_examples(rows: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """Engine rows, in order, joined with the columns of each example: PER_EXAMPLE_COLUMNS."""
    joined = rows.join(examples[list(EXAMPLE_COLUMNS)], on="example", validate="many_to_one")
    return joined[list(PER_EXAMPLE_COLUMNS)].reset_index(drop=True)
