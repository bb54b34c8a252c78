"""What is read from a table does not depend on how its rows and columns are ordered.

Statistics pair by example, by intervention and by name, so every figure is the same to the last
bit; means over whole tables, which add rows as they come, are the same to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from tests.synthetic_effects import LEADER, TRIO
from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.effects import Effects
from tinyablation.analysis.patching import Patches, residual_patches
from tinyablation.analysis.path_patching import PathEffects
from tinyablation.analysis.sweeps import Sweep
from tinyablation.corpora.examples import CONFIRMATION, DISCOVERY
from tinyablation.interventions.interventions import PatchResidual
from tinyablation.measurement.protocols import baseline_of_heads
from tinyablation.runs.derived import head_impact

# Means of some tens of figures near 4, added in another order: 2e-15 was the most.
SUMMED_DIFFERENTLY = 1e-12


@dataclass(frozen=True)
class Order:
    """Another order of a table: rows sorted by a column, then rotated, or shuffled; columns too."""

    rows: Literal["reversed", "by example", "by intervention", "by figure", "shuffled"]
    start: int  # the row that comes first, counted from the order that `rows` makes
    columns_reversed: bool
    index_kept: bool  # whether rows keep the numbers that they had
    seed: int

    def of(self, table: Any) -> Any:
        """The table in this order."""
        by = {"example": ["example"], "intervention": ["intervention"], "figure": ["logit_diff"]}
        if self.rows == "shuffled":
            places = np.random.default_rng(self.seed).permutation(len(table))
            moved = table.iloc[places]
        elif self.rows == "reversed":
            moved = table.iloc[::-1]
        else:
            moved = table.sort_values(by[self.rows.removeprefix("by ")], kind="stable")
        moved = moved.iloc[np.roll(np.arange(len(moved)), -self.start)]
        moved = moved if self.index_kept else moved.reset_index(drop=True)
        return moved[list(moved.columns)[::-1]] if self.columns_reversed else moved


ORDERS = st.builds(
    Order,
    st.sampled_from(("reversed", "by example", "by intervention", "by figure", "shuffled")),
    st.integers(0, 40),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**16),
)


def sweep_figures(sweep: Sweep) -> dict[str, Any]:
    """What claims ask of a sweep."""
    first, other = sweep.heads[0], sweep.heads[-1]
    return {
        "heads": sweep.heads,
        "top suppressor": sweep.top_suppressor(),
        "mean deltas": sweep.mean_deltas(DISCOVERY),
        "effect": sweep.effect(first),
        "effect on P": sweep.effect(first, method="mean", column="target_probability"),
        "lead": sweep.lead(first, other),
        "p": [sweep.p_corrected(head) for head in sweep.heads],
        "rank": sweep.rank(first),
        "percentile": sweep.percentile(first, among=sweep.layer(first[0])),
        "quantile": sweep.null_quantile(first, 0.95),
        "exceedance": sweep.exceedance(first),
        "methods": sweep.methods(first),
        "behaviour": sweep.behaviour(first),
        "extremes": sweep.largest(
            sweep.change(f"zero:{first[0]}.{first[1]}", DISCOVERY), DISCOVERY, 3
        ),
        **effects_figures(sweep),
    }


def effects_figures(effects: Effects) -> dict[str, Any]:
    """What is asked of any measurement: all changes, clusters, floor."""
    labels = sorted(set(effects.table["intervention"]))
    return {
        "changes": {label: effects.change(label, CONFIRMATION).tolist() for label in labels},
        "clusters": effects.clusters(CONFIRMATION),
        "floor": effects.floor(),
    }


def coalition_figures(coalitions: Coalitions) -> dict[str, Any]:
    """What claims ask of head sets."""
    return {
        "sets": coalitions.sets,
        "effect": coalitions.effect(TRIO),
        "cooperation": coalitions.cooperation(TRIO),
        "recovery": coalitions.recovery(TRIO, LEADER),
        "against sum": coalitions.against_sum(TRIO),
        "exceedance": coalitions.exceedance(TRIO, coalitions.rivals(TRIO, LEADER)),
        "least lead": coalitions.least_lead(TRIO, coalitions.rivals(TRIO, LEADER)),
        "accomplices": coalitions.accomplices(LEADER),
    }


def patch_figures(patches: Patches) -> dict[str, Any]:
    """What claims ask of patches both ways."""
    patch = PatchResidual(2, positions="last")
    return {
        "denoising": patches.recovery("denoising", patch),
        "noising": patches.recovery("noising", patch),
        "asymmetry": patches.asymmetry(patch),
        "most asymmetric": patches.most_asymmetric(residual_patches(patches.n_layers)),
        "p": patches.p_asymmetry(patch),
        "sham": patches.sham(),
        "gap": patches.gap(DISCOVERY).tolist(),
    }


def path_figures(paths: PathEffects) -> dict[str, Any]:
    """What claims ask of the paths of a head."""
    return {
        "mediated": [paths.mediated(layer) for layer in paths.receivers],
        "profile": paths.profile(),
    }


def figures_do_not_depend_on_order(
    read: Callable[[Any], dict[str, Any]], one: Any, two: Any
) -> None:
    """Every figure of the two is the same to the last bit; `read` names them."""
    found, expected = read(two), read(one)
    for name, value in expected.items():
        assert found[name] == value, (
            f"{name} depends on the order of the table: {found[name]} where {value} is due"
        )


def means_do_not_depend_on_order(table: Any, order: Order) -> None:
    """head_impact and the published baseline, rows matched by what they are of."""
    keys = ["layer", "head", "method", "scale", "split", "metric"]
    for read, by in (
        (lambda frame: head_impact(frame, "made-up", 0), keys),
        (baseline_of_heads, ["intervention", "example"]),
    ):
        found, expected = (
            read(frame).sort_values(by, kind="stable").reset_index(drop=True)
            for frame in (order.of(table), table)
        )
        assert found[by].equals(expected[by]), f"{by} are others in {order}"
        for name in expected.select_dtypes("number").columns:
            off = float((found[name] - expected[name]).abs().max())
            assert off <= SUMMED_DIFFERENTLY, f"{name} is off by {off:.3g} in {order}"
