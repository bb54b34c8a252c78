"""Sets of heads, of any layers, zeroed together: what of the clean LD is lost, and what is spared.

A head set destroys an ability if more than DESTROYED of the clean LD is lost, and spares it if no
more than SPARED is lost or gained. (The literature says "destroys" and "spares" without a figure;
Wang et al. 2022, arXiv:2211.00593, call a loss of 5 % small.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.effects import Effects, Floats
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.statistics.independent import independent_difference
from tinyablation.statistics.intervals import Estimate
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.floors import EFFECT_SHARE, Floor, Noise
from tinyablation.verdicts.shares import of_share
from tinyablation.verdicts.verdicts import (
    CONFIDENCE,
    INNER_CONFIDENCE,
    Verdict,
    judge_above_floor,
    judge_below_ceiling,
    judge_equivalent,
)

DESTROYED = 0.5
SPARED = 0.1


@dataclass(frozen=True)
class Knockouts(Effects):
    """The run of chosen sets of heads (interventions/listed.py), each zeroed together."""

    def delta(self, heads: Sequence[Head], split: str = CONFIRMATION) -> Floats:
        """[n_examples] LD with these heads zeroed - LD clean, in logits."""
        return self.change(AblateHeads(tuple(sorted(heads))).label, split)

    def lost(
        self,
        heads: Sequence[Head],
        *,
        split: str = CONFIRMATION,
        confidence: float = CONFIDENCE,
    ) -> Estimate:
        """The share of the mean clean LD that is lost without these heads; below 0: it rises.

        Raises ratios.RatioUndefined if the clean LD is not above 0 and the numerical noise.
        """
        purpose = f"lost without {set_name(sorted(heads))}"
        return self.of_clean(-self.delta(heads, split), split, purpose, confidence=confidence)

    def bound(self, share: float) -> Floor:
        """A share of the clean LD, with the noise of one."""
        return self.share_of(share, float(self.whole(CONFIRMATION).mean()))

    def destroys(self, heads: Sequence[Head]) -> Verdict:
        """The verdict on "without these heads more than half of LD is lost"; blocked as `lost`."""
        what = self._what(heads)
        return of_share(
            lambda: judge_above_floor(
                self.lost(heads), floor=self.bound(DESTROYED), what=what, unit=""
            ),
            what,
        )

    def destroys_not(self, heads: Sequence[Head], *, than: str = "") -> Verdict:
        """The verdict on "without these heads less than half of LD is lost"; blocked as `lost`.

        than: what is said of the heads (", of the same layers").
        """
        what = self._what(heads) + than
        return of_share(
            lambda: judge_below_ceiling(self.lost(heads), ceiling=DESTROYED, what=what, unit=""),
            what,
        )

    def spares(self, heads: Sequence[Head]) -> Verdict:
        """The verdict on "without these heads LD changes by less than a tenth of itself".

        Blocked as `lost`.
        """
        what = self._what(heads)
        return of_share(
            lambda: judge_equivalent(
                self.lost(heads),
                margin=SPARED,
                inner=self.lost(heads, confidence=INNER_CONFIDENCE),
                what=what,
                unit="",
            ),
            what,
        )

    def lost_shown(self, heads: Sequence[Head]) -> list[float] | str:
        """`lost` for a record: estimate, low, high; or why there is no such share."""
        try:
            return list(self.lost(heads)[:3])
        except RatioUndefined as refusal:
            return f"undefined: {refusal}"

    def _what(self, heads: Sequence[Head]) -> str:
        return f"{self.condition}: share of LD lost without {set_name(sorted(heads))}"


def costs_more(here: Knockouts, there: Knockouts, heads: Sequence[Head]) -> Verdict:
    """The verdict on "without these heads a larger share of LD is lost here than there".

    Larger by 5 % of LD, as any effect that counts. The two conditions have different prompts, so
    that the two shares are independent (independent_difference). Blocked as Knockouts.lost.
    """
    noise = sum(each.bound(EFFECT_SHARE).noise for each in (here, there))
    where = here.noise().where
    what = (
        f"share of LD lost without {set_name(sorted(heads))} on {here.condition} beyond that on "
        f"{there.condition}"
    )
    return of_share(
        lambda: judge_above_floor(
            independent_difference(here.lost(heads), there.lost(heads)),
            floor=Floor(EFFECT_SHARE, Noise(noise, where)),
            what=what,
            unit="",
        ),
        what,
    )
