"""Whether a condition says anything about a model: it must know the answers, by no shortcut.

All functions read tables of the unhooked model (runs of batteries h1, corrupt and null: the rows
with method "none"), over all examples of both splits, and return verdicts. A claim about a
condition that fails one of these is blocked, not passed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tinyablation.statistics import DegenerateInterval, Estimate, cluster_interval, generator
from tinyablation.verdicts import (
    Floor,
    Verdict,
    blocked,
    figure,
    judge_above_floor,
    judge_all_of,
)

if TYPE_CHECKING:
    import pandas

# A model is competent in a cell if it prefers the target to the foil on nine of ten examples.
# Chance is one half, and a model that goes by the operator word alone gets one half of the cells
# wrong.
COMPETENCE_FLOOR = 0.9

ALL = "all"  # the cell of conditions that have no truth x operator cells


class CellCompetence(NamedTuple):
    """How one kind of example is answered, without any intervention."""

    n: int
    accuracy: float  # share with LD > 0
    ld: float  # mean, logits
    top1: float  # share whose argmax is the target
    p_target: float  # mean probability of the target
    rank: float  # median rank of the target, 0 = top


def competence(clean: "pandas.DataFrame") -> dict[str, CellCompetence]:
    """By truth x operator cell (or "all"): accuracy, LD and behaviour on clean prompts."""
    cells = clean["cell"].where(clean["cell"] != "", ALL)
    return {
        str(name): CellCompetence(
            len(rows),
            float((rows["logit_diff"] > 0).mean()),
            float(rows["logit_diff"].mean()),
            float((rows["target_rank"] == 0).mean()),
            float(rows["target_probability"].mean()),
            float(rows["target_rank"].median()),
        )
        for name, rows in clean.groupby(cells)
    }


class Tables(NamedTuple):
    """Rows of the unhooked model on each side, the same examples in the same order."""

    clean: "pandas.DataFrame"
    corrupt: "pandas.DataFrame"
    null: "pandas.DataFrame | None"  # None where the corpus has no null prompts
    noise: float = 0.0  # numerical, in LD, in logits


def _interval(values: ArrayLike, clusters: Sequence[str], seed: int, purpose: str) -> Estimate:
    """The mean with its interval; values that are all the same have that value alone."""
    data = np.asarray(values, dtype=float)
    try:
        return cluster_interval(data, clusters, generator(seed, purpose))
    except DegenerateInterval as same:
        return Estimate(same.value, same.value, same.value, len(data), len(set(clusters)))


def is_competent(tables: Tables, *, seed: int = 0, floor: float = COMPETENCE_FLOOR) -> Verdict:
    """The model prefers the target in every truth x operator cell.

    supported: accuracy is at least the floor in every cell; refuted: in some cell the whole
    interval lies below it; else inconclusive. The figures are those of the worst cell.
    """
    cells = tables.clean["cell"].where(tables.clean["cell"] != "", ALL)
    found: dict[str, Estimate] = {}
    for name, rows in tables.clean.groupby(cells):
        right = (rows["logit_diff"] > 0).to_numpy(dtype=float)
        clusters = [str(cluster) for cluster in rows["cluster_id"]]
        share = _interval(right, clusters, seed, f"competence {name}")
        # The interval of a mean knows no bounds; a share has them.
        found[str(name)] = share._replace(low=max(0.0, share.low), high=min(1.0, share.high))
    worst = min(found, key=lambda name: found[name].estimate)
    estimate = found[worst]
    details = {name: cell._asdict() for name, cell in competence(tables.clean).items()}
    below = [name for name in found if found[name].estimate < floor]
    if not below:
        status, finding = "supported", f"at least {figure(floor)} in every cell"
    elif any(found[name].high < floor for name in below):
        status, finding = "refuted", f"below {figure(floor)} in {', '.join(sorted(below))}"
    else:
        status = "inconclusive"
        finding = f"below {figure(floor)} in {', '.join(sorted(below))}, by less than the interval"
    return Verdict(
        status,  # type: ignore[arg-type]
        f"two-way accuracy {figure(estimate.estimate)} in the worst cell ({worst}): {finding}",
        estimate,
        floor,
        unit="share",
        details={"cells": details},
    )


def tells_apart(tables: Tables, *, seed: int = 0) -> Verdict:
    """LD clean - LD corrupt > 0, paired by example."""
    difference = tables.clean["logit_diff"].to_numpy() - tables.corrupt["logit_diff"].to_numpy()
    estimate = _interval(difference, _clusters(tables.clean), seed, "clean - corrupt")
    return judge_above_floor(estimate, floor=Floor(0.0, tables.noise), what="LD clean - LD corrupt")


def flips_with_labels(tables: Tables, *, seed: int = 0) -> Verdict:
    """LD > 0 whichever of two answers is the target, and LD < 0 on the corrupt side.

    Examples are grouped by whether the target sorts before the foil: for labels that is one group a
    label. A model that merely prefers one answer has LD > 0 in one group and not in the other.
    """
    first = (tables.clean["target"] < tables.clean["foil"]).to_numpy()
    verdicts = []
    for mask, name in ((first, "the first"), (~first, "the second")):
        for side, sign in ((tables.clean, 1.0), (tables.corrupt, -1.0)):
            rows = side[mask]
            if rows.empty:
                return blocked(f"no example has {name} of its two answers as target")
            where = "clean" if sign > 0 else "corrupt, sign turned"
            purpose = f"labels {name} {where}"
            estimate = _interval(sign * rows["logit_diff"], _clusters(rows), seed, purpose)
            what = f"LD with {name} answer as target ({where})"
            verdicts.append(judge_above_floor(estimate, floor=Floor(0.0, tables.noise), what=what))
    return judge_all_of(verdicts)


def has_no_prior(tables: Tables, *, seed: int = 0) -> Verdict:
    """Mean LD clean - |LD null| > 0: a prompt about nothing shows no preference as large."""
    if tables.null is None:
        return blocked("the corpus has no null prompts")
    prior = tables.null["logit_diff"].abs().to_numpy()
    difference = tables.clean["logit_diff"].to_numpy() - prior
    estimate = _interval(difference, _clusters(tables.clean), seed, "clean - |null|")
    details = {"mean |LD| on null prompts": float(prior.mean())}
    return judge_above_floor(
        estimate, floor=Floor(0.0, tables.noise), what="LD clean - |LD null|", details=details
    )


def condition_validity(tables: Tables, *, seed: int = 0) -> Verdict:
    """All four checks together; the reason names those that fail."""
    return judge_all_of(
        [check(tables, seed=seed) for check in (is_competent, tells_apart, flips_with_labels)]
        + ([has_no_prior(tables, seed=seed)] if tables.null is not None else [])
    )


def blocks(validity: Verdict | None) -> bool:
    """Whether the claims of a condition with this validity are blocked (None: no gate)."""
    return validity is not None and validity.status in ("refuted", "blocked")


def _clusters(rows: "pandas.DataFrame") -> list[str]:
    return [str(name) for name in rows["cluster_id"]]
