"""Panels of heads zeroed together: effects alone and jointly, cooperation and recovery."""

from tinyablation.analysis.coalitions import Coalitions, Heads, set_name
from tinyablation.heads import head_name
from tinyablation.records.panels import ForestPanel, GridPanel
from tinyablation.statistics.ratios import RatioUndefined

LOGITS = "change of LD, logits"


def heads_together(subsets: Coalitions, trio: Heads) -> ForestPanel:
    """Mean Delta of each head, each pair, and the trio, against the floor."""
    sets: list[Heads] = [*((head,) for head in trio), *subsets.pairs_of(trio), trio]
    return ForestPanel.of(
        "Heads zero-ablated alone, in pairs, and together",
        LOGITS,
        {set_name(heads): subsets.effect(heads)[:3] for heads in sets},
        subsets.floor(),
    )


def cooperation(subsets: Coalitions, trio: Heads) -> ForestPanel:
    """The effect of each pair and of the trio beyond the sum of their heads' own effects."""
    sets: list[Heads] = [*subsets.pairs_of(trio), trio]
    return ForestPanel.of(
        "Cooperation: together minus the sum of each alone",
        LOGITS,
        {set_name(heads): subsets.cooperation(heads)[:3] for heads in sets},
        subsets.floor(),
    )


def pair_gains(coalitions: Coalitions) -> GridPanel:
    """The same for every pair of the layer, head by head, without intervals."""
    heads, gains = coalitions.gains()
    names = [head_name(head) for head in heads]
    return GridPanel(
        title="Cooperation of pairs: change of LD together minus the sum of each alone, logits",
        x="head",
        y="head",
        columns=names,
        rows=names,
        values=gains,
    )


def recoveries(subsets: Coalitions, trio: Heads, bound: float) -> list[ForestPanel]:
    """The recovery by restoring each head of the zeroed trio; empty if the trio has no effect.

    bound: the share that the claim compares with.
    """
    try:
        shares = {head_name(head): subsets.recovery(trio, head)[:3] for head in trio}
    except RatioUndefined:
        return []  # without an effect there are no shares; the verdict says so
    title = "Recovery: what restoring one of the zero-ablated heads takes back"
    return [ForestPanel.of(title, "share of the trio's effect", shares, bound)]
