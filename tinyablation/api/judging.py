"""Verdicts on figures from any engine: no model and no weights are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyablation.analysis.effects import Effects
from tinyablation.api.errors import ApiError
from tinyablation.api.verdict import Alternative, Verdict, check_alternative, judge_effect
from tinyablation.records.splits import BOTH
from tinyablation.statistics.clusters import cluster_index
from tinyablation.statistics.intervals import checked_figures
from tinyablation.verdicts.floors import EFFECT_SHARE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from tinyablation.statistics.intervals import Estimate

_CHANGED = "changed"


class _Figures(Effects):
    """Effects of one change, named by its label."""

    def effect(self, who: str, *, split: str) -> Estimate:
        return self.interval(self.change(who, split), split, f"effect {who}")

    def margin_of(self, who: str, *, split: str, share: float = EFFECT_SHARE) -> Estimate:
        return self.margin(self.change(who, split), split, f"effect {who}", share=share)


def judge_table(
    delta: ArrayLike,
    baseline: ArrayLike,
    clusters: Sequence[object],
    strata: Sequence[object] | None = None,
    *,
    alternative: Alternative = "greater",
    noise: float = 0.0,
    seed: int = 0,
    subject: str = "the change",
    model: str = "",
    condition: str = "",
) -> Verdict:
    """The verdict on figures measured elsewhere, by the rules of the claims.

    delta [n_prompts]: LD changed - LD clean, logits; baseline [n_prompts]: LD clean of the same
    prompts; clusters [n_prompts]: text or whole numbers, prompts of one cluster are one piece of
    evidence; strata [n_prompts]: kinds of prompts in shares fixed by design, such as wordings.
    alternative: "greater": delta is claimed to be above the minimum effect (a suppressor), "less":
    below minus it. noise: how far the engine's arithmetic moves delta, in logits. seed: of the
    resampling. subject, model, condition: texts for the verdict.

    Supported if the 95 % interval of delta over clusters, beyond 5 % of each prompt's own clean LD,
    lies above 0, and that of delta above .01 logits and the noise. Raises StatisticsError for
    figures that are not finite, missing labels or fewer than two clusters; ApiError for different
    lengths.
    """
    import pandas

    check_alternative(alternative)
    if not noise >= 0:
        raise ApiError(f"noise is {noise}; give 0 or more, in logits")
    changes = checked_figures(delta, "delta", ndim=1)
    clean = checked_figures(baseline, "baseline", ndim=1)
    labels = [_label(name) for name in clusters]
    kinds = [""] * len(changes) if strata is None else [str(name) for name in strata]
    for name, given in (("baseline", clean), ("clusters", labels), ("strata", kinds)):
        if len(given) != len(changes):
            raise ApiError(f"{name} has {len(given)} entries for {len(changes)} of delta")
    cluster_index(labels, len(labels))
    shared = {
        "example": np.arange(len(changes)),
        "cluster_id": [str(label) for label in labels],
        "template_id": kinds,
        "cell": "",
        "split": BOTH,
    }
    rows = [
        pandas.DataFrame({"intervention": name, "method": method, "logit_diff": values, **shared})
        for name, method, values in (
            ("baseline", "none", clean),
            (_CHANGED, "zero", clean + changes),
        )
    ]
    figures = _Figures(model, condition, pandas.concat(rows, ignore_index=True), noise, seed)
    judged = judge_effect(figures, _CHANGED, subject, split=BOTH, alternative=alternative)
    return Verdict.of(judged, model=model, condition=condition, subject=subject, split=BOTH)


def _label(name: Any) -> Any:
    """A label as the statistics take it: numpy's whole numbers and texts as Python's."""
    return name.item() if isinstance(name, np.generic) else name
