"""The ablation of a head that leaves it its copy suppression."""

from dataclasses import dataclass

from tinyablation.heads import heads_label
from tinyablation.interventions.sites import (
    ActivationSource,
    Columns,
    HeadChange,
    InterventionError,
    Part,
    Site,
    number,
    single,
)

# The share of the source tokens at or before a token that are kept (McDougall et al.: 5 %).
KEPT_SHARE = 0.05


@dataclass(frozen=True)
class KeepCopySuppression(HeadChange):
    """Mean ablation of one head, but for what it does against tokens that are predicted already.

    The copy-suppression-preserving ablation of McDougall et al. 2023 (arXiv:2310.04625, section
    3.3), as their code defines it. What the head moves from a source token S to a destination D is
    A[D, S] v_S W_O, with A its attention and v its values. Instead of sum_S A[D, S] v_S W_O it
    writes

        m + sum over kept S of A[D, S] min(0, (v_S W_O - m) . u_S) u_S,

    where m is its mean output over the reference prompts (as in mean ablation) and u_S the unit
    vector along the unembedding of token S, seen through the linear part of the final norm and
    centred over the vocabulary. Kept are the tokens that the stream before the layer predicts
    most: with n tokens at or before D, those whose logit at D, stream . unembedding, is among the
    ceil(share * n) largest of the distinct ones.

    direct: whether only the head's write into the stream before the final norm is changed (its
    direct effect), not what later layers make of it.

    Theirs differs in three ways. m is by position there, over OpenWebText. A list of English
    function words is never kept. And 76.9 % was measured of the direct effect with the final norm's
    scale frozen; here the norm is computed anew, as after every ablation.
    """

    share: float = KEPT_SHARE
    direct: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.heads) != 1:
            raise InterventionError(f"one head keeps its copy suppression, got {self.heads!r}")
        object.__setattr__(self, "share", number("share", self.share))
        if not 0 < self.share <= 1:
            raise InterventionError(f"share must be above 0 and at most 1, got {self.share}")

    @property
    def method(self) -> str:
        """What the rest of the head becomes, a method of AblateHeads."""
        return "mean"

    @property
    def label(self) -> str:
        """Name in tables, such as "copy_suppression0.05:10.7" (layer.head)."""
        direct = ":direct" if self.direct else ""
        return f"copy_suppression{self.share!r}:{heads_label(self.heads)}{direct}"

    @property
    def columns(self) -> Columns:
        return Columns(
            "copy_suppression",
            "path" if self.direct else "head",
            self.heads,
            *single(self.heads),
            scale=self.share,
        )

    @property
    def source(self) -> ActivationSource:
        """No donor; but a prompt's own row, for its attention is read there."""
        return ActivationSource(positions="all")

    def sites(self, n_layers: int) -> tuple[Site, ...]:
        layer = self.heads[0][0]
        return (Site(n_layers, Part.STREAM) if self.direct else Site(layer, Part.ATTENTION),)
