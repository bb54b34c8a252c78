"""Step norms at a layer's output with heads of it zeroed, for one model and condition.

The result of residual_steps.measure_geometry is a reading: measured once and read without torch. As
a table by example it supports the methods of any coalition: effect, exceedance, clusters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinyablation.analysis.coalitions import Coalitions, Heads
from tinyablation.engine.document import Computed
from tinyablation.heads import Head, heads_label
from tinyablation.interventions.batteries import Sample
from tinyablation.interventions.head_sets import HeadSets

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example
    from tinyablation.engine.residual_steps import Geometry
    from tinyablation.measurement.interface import Measures

# Columns of the table: mean over a prompt's first steps, and over all of them.
EARLY_STEPS, ALL_STEPS = "step_norm_early", "step_norm"


@dataclass(frozen=True)
class StepNorms(Coalitions):
    """Triples of one layer's heads, zeroed; columns EARLY_STEPS and ALL_STEPS instead of an LD.

    In the residual stream's own unit; pass the name of a column. spread: activation_spread of the
    clean and the ablated last-token vectors, their difference with its interval (nats), and the
    numbers of examples and dimensions: its sign is meaningless with few examples per dimension.
    """

    spread: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TripleNorms:
    """The reading: step norms with each triple of the trio's layer zeroed, including the trio."""

    trio: tuple[Head, ...]

    def __post_init__(self) -> None:
        own = sorted((int(layer), int(head)) for layer, head in self.trio)
        object.__setattr__(self, "trio", tuple(own))

    @property
    def sample(self) -> Sample:
        return HeadSets.sample

    def sets(self, bench: "Measures") -> HeadSets:
        """The sets of the trio's layer; BatteryError for a trio that is not of one layer."""
        sets = HeadSets(self.trio[0][0], self.trio, bench.facts.n_heads, seed=bench.seed)
        sets.sets()
        return sets

    def name(self, bench: "Measures") -> str:
        self.sets(bench)
        return f"geometry-{_name(self.trio)}"

    def compute(self, bench: "Measures", condition: str) -> Computed:
        from tinyablation.corpora.tokenisation import Prompt, encode
        from tinyablation.engine.residual_steps import measure_geometry

        sets, model = self.sets(bench), bench.model
        triples = tuple(heads for heads in sets.sets() if len(heads) == 3)
        rows, examples = _measured(bench, condition, self.sample)
        before = () if model.bos_id is None else (model.bos_id,)
        # The residual stream does not depend on the answers, which may have several tokens.
        prompts = [
            Prompt((*before, *encode(model.tokenizer, example.clean)), 0, 1) for example in examples
        ]
        own = self.trio
        found = measure_geometry(bench.engine, prompts, triples, sets.layer, vectors_of=[(), own])
        wide = {name: _wide(found.table, name) for name in (EARLY_STEPS, ALL_STEPS)}
        document = {
            "layer": sets.layer,
            "sets": list(wide[EARLY_STEPS].index),  # the rows of both tensors; "": the clean model
            "rows": list(rows),  # rows of the corpus, the columns of both tensors
            "spread": _spread(found, own, [example.cluster_id for example in examples]),
        }
        return Computed(document, {name: table.to_numpy() for name, table in wide.items()})


def stepnorms(bench: "Measures", condition: str, trio: tuple[Head, ...]) -> StepNorms:
    """The triples of the trio's layer, on the examples that its coalitions are measured on.

    Reused if the reading is complete. Raises BatteryError for a trio that is not in one layer, and
    whatever measure_geometry raises.
    """
    wanted = TripleNorms(trio)
    reading = bench.reading(condition, wanted)
    document, tensors = reading.document(), reading.tensors()
    rows, examples = _measured(bench, condition, wanted.sample)
    clusters = [example.cluster_id for example in examples]
    import pandas

    common = {
        "example": range(len(examples)),
        "split": list(rows.values()),
        "fact_id": [example.fact_id for example in examples],
        "cluster_id": clusters,
        "template_id": [example.template_id for example in examples],
        "cell": [example.cell for example in examples],
        "target": [example.target for example in examples],
        "foil": [example.foil for example in examples],
    }
    parts = []
    for number, label in enumerate(document["sets"]):
        figures = {name: tensors[name][number] for name in (EARLY_STEPS, ALL_STEPS)}
        method, name = ("zero", f"zero:{label}") if label else ("none", "baseline")
        named = {"intervention": name, "method": method, "heads": label}
        parts.append(pandas.DataFrame({**common, **named, **figures}))
    table = pandas.concat(parts, ignore_index=True)
    # Sums in float64: the rounding error of a norm is far below any share of it.
    return StepNorms(
        bench.entry.id,
        condition,
        table,
        noise_floor=0.0,
        seed=bench.seed,
        runs=(reading.name,),
        spread=document["spread"],
    )


def _measured(
    bench: "Measures", condition: str, sample: Sample
) -> tuple[dict[int, str], list["Example"]]:
    """Row of the corpus -> split, and the examples in that order."""
    rows = bench.rows(condition, sample)
    corpus, _ = bench.corpus(condition)
    return rows, [corpus.examples[row] for row in rows]


def _name(heads: Heads) -> str:
    return heads_label(heads).replace("+", "_")


def _wide(table: "pandas.DataFrame", column: str) -> "pandas.DataFrame":
    return table.pivot(index="heads", columns="example", values=column).sort_index(axis=1)


def _spread(found: "Geometry", trio: Heads, clusters: list[str]) -> dict[str, Any]:
    from tinyablation.engine.residual_steps import activation_spread, spread_difference
    from tinyablation.statistics.clusters import StatisticsError

    clean, ablated = found.vectors[""], found.vectors[heads_label(trio)]
    figures: dict[str, Any] = {"examples": len(clean), "dimensions": clean.shape[1]}
    try:
        difference = spread_difference(clean, ablated, clusters)
        return figures | {
            "clean": activation_spread(clean),
            "ablated": activation_spread(ablated),
            "difference": list(difference[:3]),
        }
    except StatisticsError as refusal:
        return figures | {"refused": str(refusal)}
