"""Validity: whether the model knows the answers of a condition without a shortcut.

All functions read tables of the unhooked model and return verdicts. If a condition has families of
prompts, each is judged separately: a family that fails is left out, the condition is blocked only
if none remains, and an inconclusive family counts, with a caveat.

D = (LD clean - LD corrupt) / 2 is the effect of a prompt's content. A preference for a word, label
or position adds the same to both sides and cancels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyablation.corpora.examples import family_of
from tinyablation.statistics.intervals import (
    DegenerateInterval,
    Estimate,
    cluster_interval,
    generator,
)
from tinyablation.statistics.shares import share_interval
from tinyablation.verdicts.floors import Floor, figure
from tinyablation.verdicts.verdicts import (
    Verdict,
    blocked,
    judge_above_floor,
    judge_all_of,
)

if TYPE_CHECKING:
    import pandas

# The share of prompts in which LD clean must exceed LD corrupt. Chance is one half, and a bias for
# a label or position alone gives one half too, because the mirrored prompt swaps the answers.
APART = 0.9
# The share of clean prompts in which the model must prefer the target, for V.1; not a gate.
COMPETENCE_FLOOR = 0.9

ALL = "all"  # the cell of conditions that have no truth x operator cells


class CellCompetence(NamedTuple):
    """How the unhooked model answers one kind of example."""

    n: int
    accuracy: float  # share with LD > 0
    ld: float  # mean, logits
    top1: float  # share whose argmax is the target
    p_target: float  # mean probability of the target
    rank: float  # median rank of the target, 0 = top


def competence(clean: "pandas.DataFrame") -> dict[str, CellCompetence]:
    """By family and truth x operator cell (or "all"): accuracy, LD and behaviour on clean prompts.

    The key of a cell of a family is "family: cell".
    """
    found = {}
    for name, rows in clean.groupby(_cells(clean)):
        found[str(name)] = CellCompetence(
            len(rows),
            float((rows["logit_diff"] > 0).mean()),
            float(rows["logit_diff"].mean()),
            float((rows["target_rank"] == 0).mean()),
            float(rows["target_probability"].mean()),
            float(rows["target_rank"].median()),
        )
    return found


def _cells(rows: "pandas.DataFrame") -> "pandas.Series":
    families = rows["template_id"].map(family_of)
    cells = rows["cell"].where(rows["cell"] != "", ALL)
    return cells.where(families == "", families + ": " + cells)


class Tables(NamedTuple):
    """Rows of the unhooked model on each side, the same examples in the same order."""

    clean: "pandas.DataFrame"
    corrupt: "pandas.DataFrame"
    null: "pandas.DataFrame | None"  # None if the corpus has no null prompts
    noise: float = 0.0  # numerical noise of LD, in logits
    runs: tuple[str, ...] = ()  # names of the run directories they come from

    @property
    def families(self) -> tuple[str, ...]:
        """The families of its prompts, sorted; ("",) if the condition has none."""
        return tuple(sorted(set(self.clean["template_id"].map(family_of))))

    def of(self, *families: str) -> "Tables":
        """The rows of these families only."""
        kept = self.clean["template_id"].map(family_of).isin(families).to_numpy()
        null = None if self.null is None else self.null[kept]
        return Tables(self.clean[kept], self.corrupt[kept], null, self.noise, self.runs)


def mirrored(clean: "pandas.DataFrame", mirrors: Sequence[int]) -> "pandas.DataFrame":
    """The corrupt rows, taken from a clean table in which every corrupt prompt is measured.

    Each is the clean row of the example's mirror, whose target is the example's foil; mirrors: the
    position of each row's mirror.
    """
    corrupt = clean.iloc[list(mirrors)].reset_index(drop=True)
    corrupt["logit_diff"] = -corrupt["logit_diff"]
    return corrupt.assign(target=clean["target"].to_numpy(), foil=clean["foil"].to_numpy())


def blocks(validity: Verdict | None) -> bool:
    """Whether the claims of a condition with this validity are blocked (None: no gate)."""
    return validity is not None and validity.status in ("refuted", "blocked")


def told_apart(tables: Tables, *, what: str = "") -> Verdict:
    """The verdict on "LD clean > LD corrupt in at least APART of the prompts".

    supported: the interval of the share over clusters lies above APART; refuted: below; else
    inconclusive. A difference within the numerical noise does not count as larger.
    """
    difference = tables.clean["logit_diff"].to_numpy() - tables.corrupt["logit_diff"].to_numpy()
    share = _share(difference > tables.noise, _clusters(tables.clean))
    return _above(
        share, floor=APART, what=f"{_led(what)}LD clean > LD corrupt in a share of", unit=""
    )


def follows_answers(
    tables: Tables, *, seed: int = 0, what: str = "", corrected: bool = True
) -> Verdict:
    """The verdict on "D > 0 whichever answer is the target, and wherever it is in the prompt".

    Examples are grouped by whether the target sorts before the foil (for labels: one group per
    label) and by cell, which gives the position if both answers occur in the prompt. A model that
    merely prefers one label or position has D > 0 in one group and D < 0 in the other. corrected:
    as for judge_all_of.
    """
    clean = tables.clean
    d = (clean["logit_diff"].to_numpy() - tables.corrupt["logit_diff"].to_numpy()) / 2
    first = (clean["target"] < clean["foil"]).to_numpy()
    groups = {"the first of the two answers is the target": first}
    groups["the second is"] = ~first
    cells = clean["cell"].where(clean["cell"] != "", ALL)
    if cells.nunique() > 1:
        groups |= {f"cell {name}": (cells == name).to_numpy() for name in sorted(set(cells))}
    clusters = np.array(_clusters(clean), dtype=object)
    verdicts = []
    for name, mask in groups.items():
        if not mask.any():
            return blocked(f"{_led(what)}no example in which {name}")
        estimate = _interval(d[mask], list(clusters[mask]), seed, f"D {what} {name}")
        verdicts.append(
            _above(estimate, floor=Floor(0.0, tables.noise), what=f"{_led(what)}D where {name}")
        )
    return judge_all_of(verdicts, corrected=corrected)


def family_validity(tables: Tables, *, seed: int = 0) -> dict[str, Verdict]:
    """By family: whether the model distinguishes clean from corrupt prompts, and not by a bias.

    details of each: prompts, clusters, accuracy, told apart, and the mean LD of both sides.
    """
    found = {}
    for name in tables.families:
        own = tables.of(name)
        apart = told_apart(own, what=name)
        # Uncorrected: what is not shown to fail counts, so a correction would open the gate.
        answers = follows_answers(own, seed=seed, what=name, corrected=False)
        parts = [apart] if answers.status == "blocked" else [apart, answers]
        verdict = judge_all_of(parts, show=apart, corrected=False)
        clean = own.clean["logit_diff"]
        details = {
            "prompts": len(own.clean),
            "clusters": len(set(_clusters(own.clean))),
            "accuracy": float((clean > 0).mean()),
            "told apart": None if apart.effect is None else apart.effect.estimate,
            "LD clean": float(clean.mean()),
            "LD corrupt": float(own.corrupt["logit_diff"].mean()),
            "status": verdict.status,
        }
        found[name] = Verdict(
            verdict.status,
            verdict.reason,
            apart.effect,
            apart.floor,
            unit="share",
            details=details,
            distance=verdict.distance,
            criteria=verdict.criteria,
        )
    return found


def counting(families: dict[str, Verdict]) -> tuple[str, ...]:
    """The families that count: those not shown to fail."""
    return tuple(name for name, verdict in families.items() if not blocks(verdict))


def condition_validity(tables: Tables, *, seed: int = 0) -> Verdict:
    """Whether the condition counts for the model: some family of it must (see family_validity).

    supported: at least one is valid; inconclusive: none is, but one may be, so claims are judged
    with a caveat; refuted: each is shown to fail. The figures are those of all families that count,
    pooled, or of all families if none does. details: by family, and the caveats.
    """
    return combined(family_validity(tables, seed=seed), tables)


def combined(families: dict[str, Verdict], tables: Tables) -> Verdict:
    """The validity of a condition, combined from that of its families."""
    kept = counting(families)
    pooled = told_apart(tables.of(*(kept or families)))
    named = {name: name or "its prompts" for name in families}
    statuses = {families[name].status for name in kept}
    status = "refuted" if not kept else "supported" if "supported" in statuses else "inconclusive"
    left = [
        f"{named[name]}: {verdict.reason}" if name else verdict.reason
        for name, verdict in families.items()
        if name not in kept
    ]
    # One family that is valid is enough.
    near = [each.distance for each in families.values() if each.distance is not None]
    unsure = [families[name].reason for name in kept if families[name].status == "inconclusive"]
    if not kept:
        reason = "; ".join(families[name].reason for name in families)
    else:
        shares = ", ".join(
            f"{name or 'all prompts'} {figure(families[name].effect.estimate)}"  # type: ignore[union-attr]
            for name in kept
        )
        reason = f"clean and corrupt are told apart: {shares}"
        reason += "".join(f"; left out: {each}" for each in left)
        reason += "".join(f"; not certain: {each}" for each in unsure)
    return Verdict(
        status,  # type: ignore[arg-type]
        reason,
        pooled.effect,
        pooled.floor,
        unit="share",
        distance=max(near) if near else None,
        details={
            "families": {name or ALL: dict(each.details) for name, each in families.items()},
            "left out": left,
            "caveats": unsure,
        },
        criteria=tuple(each for name in kept or families for each in families[name].criteria),
    )


def is_competent(
    tables: Tables, *, floor: float = COMPETENCE_FLOOR, by_cell: bool = False
) -> Verdict:
    """The verdict on "the model prefers the target in `floor` of each family's clean prompts".

    supported: the interval of each family's share over clusters lies above the floor; refuted: that
    of some family lies below it; else inconclusive. The figures are those of the worst family.
    by_cell: so for each truth x operator cell of each family.
    """
    clean = tables.clean
    kinds = _cells(clean) if by_cell else clean["template_id"].map(family_of)
    found = {
        str(name): _share((own["logit_diff"] > 0).to_numpy(), _clusters(own))
        for name, own in clean.groupby(kinds)
    }
    worst = min(found, key=lambda name: found[name].estimate)
    verdicts = {
        name: _above(share, floor=floor, what=f"{_led(name)}two-way accuracy", unit="")
        for name, share in found.items()
    }
    whole = judge_all_of(list(verdicts.values()), show=verdicts[worst])
    details = {name: cell._asdict() for name, cell in competence(tables.clean).items()}
    return Verdict(
        whole.status,
        whole.reason,
        whole.effect,
        whole.floor,
        unit="share",
        details={"cells": details},
        distance=whole.distance,
        criteria=whole.criteria,
    )


def exceeds_prior(tables: Tables, *, seed: int = 0) -> Verdict:
    """The verdict on "mean LD clean > LD null > LD corrupt".

    Content then moves LD both ways from the preference on null prompts, so that this preference
    alone does not decide.
    """
    if tables.null is None or tables.null.empty:
        return blocked("the corpus has no null prompts")
    prior = tables.null["logit_diff"].to_numpy()
    clusters = _clusters(tables.clean)
    sides = {
        "LD clean - LD null": tables.clean["logit_diff"].to_numpy() - prior,
        "LD null - LD corrupt": prior - tables.corrupt["logit_diff"].to_numpy(),
    }
    details = {"mean |LD| on null prompts": float(np.abs(prior).mean())}
    return judge_all_of(
        [
            _above(
                _interval(values, clusters, seed, name),
                floor=Floor(0.0, tables.noise),
                what=name,
                details=details,
            )
            for name, values in sides.items()
        ]
    )


def _above(
    effect: Estimate,
    *,
    floor: float,
    what: str,
    unit: str = "logits",
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """judge_above_floor, but that one cluster supports nothing: it says nothing about others."""
    found = judge_above_floor(effect, floor=floor, what=what, unit=unit, details=details)
    if found.status != "supported" or effect.n_clusters > 1:
        return found
    return replace(
        found, status="inconclusive", reason=f"{found.reason}, but of one cluster of examples"
    )


def _interval(values: ArrayLike, clusters: Sequence[str], seed: int, purpose: str) -> Estimate:
    """The mean with its interval, which has zero width if all values are equal.

    It is not widened for few clusters: what is not shown to be invalid counts, so that a wider
    interval would let families of few clusters pass the gate.
    """
    data = np.asarray(values, dtype=float)
    if len(set(clusters)) < 2:
        return _of_one_cluster(data)
    try:
        return cluster_interval(data, clusters, generator(seed, purpose), widened=False)
    except DegenerateInterval as same:
        return Estimate(same.value, same.value, same.value, len(data), len(set(clusters)))


def _share(values: ArrayLike, clusters: Sequence[str]) -> Estimate:
    """A share of examples with its interval, which is never of zero width."""
    data = np.asarray(values, dtype=float)
    return _of_one_cluster(data) if len(set(clusters)) < 2 else share_interval(data, clusters)


def _of_one_cluster(data: NDArray[np.float64]) -> Estimate:
    """One cluster says nothing about others: any mean in the observed range is possible."""
    return Estimate(float(data.mean()), float(data.min()), float(data.max()), len(data), 1)


def _led(what: str) -> str:
    return f"{what}: " if what else ""


def _clusters(rows: "pandas.DataFrame") -> list[str]:
    return [str(name) for name in rows["cluster_id"]]
