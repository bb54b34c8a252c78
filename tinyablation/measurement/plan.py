"""The plan of a run before it is measured: its address, its shards and its examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyablation.errors import ModelChanged
from tinyablation.interventions.batteries import AnyBattery, Shard, Side, battery
from tinyablation.measurement.shard_computation import Measurement
from tinyablation.measurement.verification import verify
from tinyablation.runs.address import RunConfig
from tinyablation.runs.store import NotVerified

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example
    from tinyablation.measurement.interface import Directions, Measures


class RunPlan(NamedTuple):
    """The arguments of RunStore.obtain for a run, and what they were made from."""

    config: RunConfig
    battery: AnyBattery
    shards: list[Shard]
    measure: Measurement
    examples: pandas.DataFrame
    directions: Directions | None

    def verify(self, table: pandas.DataFrame) -> dict[str, Any]:
        """verify.json; NotVerified also if the model's files are not those that were hashed."""
        verified = verify(self.measure, self.shards, table)
        try:
            self.measure.held.require_unchanged(fresh=True)
        except ModelChanged as error:  # shards may have been computed with other weights
            raise NotVerified(f"run {self.config.name}: {error}") from error
        return verified


def plan_run(
    bench: Measures,
    condition: str,
    wanted: str | AnyBattery,
    directions: Directions | None = None,
) -> RunPlan:
    """The plan of one battery's run under one condition; no model is loaded for it.

    If the run depends on the examples that count, and these are not known yet, they are selected
    first, which measures the unhooked model (Gate.selection).
    """
    chosen = battery(wanted) if isinstance(wanted, str) else wanted
    sample = chosen.sample
    rows = bench.rows(condition, sample, aligned=bool(chosen.donor))
    examples = bench.chosen(condition, sample, rows)
    return RunPlan(
        bench.config(condition, chosen.name, sample),
        chosen,
        chosen.shards(bench.facts.n_layers, bench.facts.n_heads),
        measurement_of(bench, chosen, condition, examples, directions),
        examples_frame(examples, rows, chosen.side),
        directions,
    )


def measurement_of(
    bench: Measures,
    wanted: AnyBattery,
    condition: str,
    examples: Sequence[Example],
    directions: Directions | None = None,
) -> Measurement:
    """The Measurement of a battery on these examples of a condition, drawn by its sample."""
    sample = wanted.sample
    corpus, _ = bench.corpus(condition)
    # The unhooked model needs no donors, and encoding a crossed corpus takes a second.
    pool = examples if sample.among == "all" else bench.pool(condition, sample)
    return Measurement(
        bench,
        wanted,
        condition,
        examples,
        pool,
        run=bench.config(condition, wanted.name, sample).name,
        place=f"{corpus.tokenizer}/{condition}",
        seed=bench.seed,
        protocol=bench.protocol,
        directions=None if directions is None else partial(directions, bench),
    )


def examples_frame(
    examples: Sequence[Example], rows: Mapping[int, str], side: Side
) -> pandas.DataFrame:
    """The examples of a run's rows as columns of its tables; "clean" holds the measured prompt."""
    import pandas

    # By column: a dictionary per row takes ten times as long, and reading a run does this.
    return pandas.DataFrame(
        {
            "split": list(rows.values()),
            "fact_id": [example.fact_id for example in examples],
            "cluster_id": [example.cluster_id for example in examples],
            "template_id": [example.template_id for example in examples],
            "cell": [example.cell for example in examples],
            "clean": [getattr(example, side) for example in examples],
            "target": [example.target for example in examples],
            "foil": [example.foil for example in examples],
        }
    )
