"""Activation patching and path patching: where the answer is, and which way it travels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tinyablation.analysis.patching import (
    ASYMMETRY_FLOOR,
    DIRECTIONS,
    is_flat,
    residual_patches,
)
from tinyablation.analysis.patching import Patches as Measured
from tinyablation.analysis.path_patching import PathEffects
from tinyablation.api.errors import ApiError
from tinyablation.api.study import Study
from tinyablation.api.verdict import Verdict, html_table, split_of
from tinyablation.interventions.interventions import PatchResidual, Positions
from tinyablation.records.splits import BOTH, CONFIRMATION
from tinyablation.spelling import did_you_mean
from tinyablation.verdicts.verdicts import Verdict as Judged
from tinyablation.verdicts.verdicts import blocked, judge_above_floor

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

POSITIONS: tuple[Positions, ...] = ("last", "subject")
UNIT = "of LD clean - LD corrupt"
MOST = 0.5  # a path carries most of an effect above this share


@dataclass(frozen=True)
class Patches:
    """The residual stream of one prompt put into the run on its counterpart, both ways.

    Denoising puts clean activations into the corrupt run (are they sufficient?), noising corrupt
    ones into the clean run (are the clean ones necessary?). Aligned pairs only: of equal numbers of
    tokens. effects: the library's own object, which claims get as the fixture `patches`.
    """

    study: Study
    effects: Measured

    @property
    def rows(self) -> pandas.DataFrame:
        """One row per patch and pair, column `direction` first: see docs/api.md."""
        import pandas

        both = {name: getattr(self.effects, name).table for name in DIRECTIONS}
        return (
            pandas.concat(both, names=["direction"]).reset_index("direction").reset_index(drop=True)
        )

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per position and layer: position, layer, denoising, noising, ..., asymmetry.

        position: "last" (the last token) or "subject" (where the two prompts differ). denoising and
        noising: the share of LD clean - LD corrupt that the patch moves, 0 none and 1 all, each
        with its 95 % interval (`_low`, `_high`), on the confirmation split; asymmetry: noising -
        denoising. Raises RatioUndefined if LD clean - LD corrupt is not above 0.
        """
        import pandas

        rows = []
        for patch in residual_patches(self.effects.n_layers, POSITIONS):
            row: dict[str, object] = {"position": patch.positions, "layer": patch.layer}
            for direction in DIRECTIONS:
                found = self.effects.recovery(direction, patch)
                names = (direction, f"{direction}_low", f"{direction}_high")
                row |= dict(zip(names, found[:3], strict=True))
            rows.append(row | {"asymmetry": self.effects.mean_asymmetry(patch)})
        return pandas.DataFrame(rows)

    def verdict(self, layer: int | None = None, *, position: str | None = None) -> Verdict:
        """Whether noising destroys more of the answer than denoising restores, as claim H6.1.

        layer, position: None: those that differ most on the discovery split. Supported if the
        interval of the difference lies above .05 of LD clean - LD corrupt with p <= .05.
        """
        patch = self._patch(layer, position)
        where = f"layer {patch.layer}, {patch.positions}"
        judged = None
        if self.study.reason_blocked is None:
            judged = self._judged(patch, where)
        return self.study.verdict(judged, where, CONFIRMATION)

    def plot(self) -> Figure:
        """The shares by layer, a line for each direction and position."""
        from tinyablation.api.plots import curves

        series = {
            f"{direction}, {where}": self._profile(direction, where)
            for where in POSITIONS
            for direction in DIRECTIONS
        }
        return curves(series, self.study.title, f"share {UNIT}")

    def _judged(self, patch: PatchResidual, where: str) -> Judged:
        if all(is_flat(self._profile(each, patch.positions)) for each in DIRECTIONS):
            return blocked(
                f"what patching {where} restores and destroys is the same at every layer: no "
                "finding about a layer"
            )
        return judge_above_floor(
            self.effects.asymmetry(patch),
            floor=self.effects.bound(ASYMMETRY_FLOOR),
            p_corrected=self.effects.p_asymmetry(patch),
            p_test="permutation",
            what=f"noising - denoising at {where}",
            unit=UNIT,
        )

    def _profile(self, direction: str, where: str) -> list[float]:
        return self.effects.profile(
            direction,  # type: ignore[arg-type]
            lambda layer: PatchResidual(layer, positions=where),  # type: ignore[arg-type]
            CONFIRMATION,
        )

    def _patch(self, layer: int | None, position: str | None) -> PatchResidual:
        n_layers = self.effects.n_layers
        if position is not None and position not in POSITIONS:
            raise ApiError(f"position {position!r}: {did_you_mean(position, POSITIONS)}")
        if layer is not None and not 0 <= layer < n_layers:
            raise ApiError(f"layer {layer}: the model has layers 0 to {n_layers - 1}")
        candidates = [
            patch
            for patch in residual_patches(n_layers, POSITIONS)
            if layer in (None, patch.layer) and position in (None, patch.positions)
        ]
        found = self.effects.most_asymmetric(candidates)
        assert isinstance(found, PatchResidual)
        return found

    def __repr__(self) -> str:
        return f"Patches({self.study.title}: residual stream of {self.effects.n_layers} layers)"

    def _repr_html_(self) -> str:
        columns = ("position", "layer", "denoising", "noising", "asymmetry")
        caption = f"{self.study.title}: share {UNIT} that the residual stream moves"
        return html_table(caption, columns, self.table[list(columns)].to_numpy().tolist())


@dataclass(frozen=True)
class Paths:
    """One head's direct paths into the residual stream of every later layer.

    effects: the library's own object, which claims get as the fixture `paths`.
    """

    study: Study
    effects: PathEffects

    @property
    def rows(self) -> pandas.DataFrame:
        """One row per path and prompt, the unhooked model included: see docs/api.md."""
        return self.effects.table

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per receiving layer: layer, delta, low, high.

        delta: the mean of LD - LD clean with only the head's direct contribution cut from the
        stream that enters the layer, in logits, with its 95 % interval, over all prompts. The last
        layer is the stream before the final norm: the direct path to the logits.
        """
        import pandas

        rows = []
        for layer in self.effects.receivers:
            values = self.effects.through(layer, BOTH)
            purpose = f"path {self.effects.head.label} to {layer} delta"
            found = self.effects.interval(values, BOTH, purpose)
            rows.append(
                {"layer": layer, **dict(zip(("delta", "low", "high"), found, strict=False))}
            )
        return pandas.DataFrame(rows)

    @property
    def total(self) -> float:
        """The mean Delta LD of zeroing the head, all paths together, in logits."""
        return float(self.effects.total(BOTH).mean())

    def verdict(self, layer: int, *, split: str | None = None) -> Verdict:
        """Whether most of the head's effect takes the direct path into `layer`, as claim H6.3.

        Supported if the interval of the share lies above .5. Blocked if the head has no effect
        above 0: then there is nothing that a path could carry. split: the prompts that judge, by
        default "both" halves.
        """
        from tinyablation.statistics.ratios import RatioUndefined

        if layer not in self.effects.receivers:
            ends = self.effects.receivers
            raise ApiError(f"layer {layer}: paths of this head lead to {ends[0]} to {ends[-1]}")
        judging = split_of(split)
        what = f"share of {self.effects.head.name} on its path into layer {layer}"
        judged = None
        if self.study.reason_blocked is None:
            try:
                judged = judge_above_floor(
                    self.effects.mediated(layer, split=judging),
                    floor=self.effects.share(MOST, split=judging),
                    what=what,
                    unit="of the head's effect",
                )
            except RatioUndefined as refusal:
                judged = blocked(f"{what}: {refusal}")
        subject = f"{self.effects.head.name} into layer {layer}"
        return self.study.verdict(judged, subject, judging)

    def plot(self) -> Figure:
        """A forest plot: a line a receiving layer, its Delta with its interval, in logits."""
        from tinyablation.api.plots import forest
        from tinyablation.statistics.intervals import Estimate

        lines = [
            (f"into layer {row.layer}", Estimate(row.delta, row.low, row.high, 0, 0), "")
            for row in self.table.itertuples()
        ]
        return forest(lines, f"{self.study.title}: {self.effects.head.name}", "logits")

    def __repr__(self) -> str:
        return f"Paths({self.study.title}: {self.effects.head.name})"

    def _repr_html_(self) -> str:
        caption = f"{self.study.title}: Delta of the paths of {self.effects.head.name}, logits"
        return html_table(caption, list(self.table), self.table.to_numpy(dtype=object).tolist())
