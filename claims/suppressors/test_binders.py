"""B: single heads with a trade: binders in the middle layers, sharpeners in the last.

Heads are zero-ablated; each half of the examples judges a head that the other half chose.
Change = ablated - clean.
"""

import pytest

from tinyablation.heads import head_name
from tinyablation.verdicts.floors import EFFECT_SHARE, effect_floor
from tinyablation.verdicts.verdicts import judge_above_floor, judge_below_ceiling

# B.2: in nats, for a sharpener is named by nats. The published .08 to .10 count, and half of that
# still does; 5 % of the clean entropy, some .3 of the published 6.4 nats, would exclude them.
SHARPENS = 0.05
SHOWN = 12  # heads with figures of their own in the report


@pytest.mark.claim("B.1")
def test_a_middle_head_binds(binding, judge):
    """Some head of the middle layers binds a thing to its property, within the prompt.

    Estimator: on prompts that introduce two things and ask for one, mean Delta LD of the head of
      the middle half of the layers whose ablation lowers LD most on one half of the examples,
      judged by the other half, and the reverse.
    Threshold: the 98 % interval (see H1.1) over clusters lies below -5 % of the clean LD, -.01
      logits and the numerical noise. Blocked where the model does not bind.
    Refuted if: the interval of every head of these layers lies above that and not below 0.
    Audit: selection correction
    """
    layers = middle_half(binding.n_layers)
    among = [head for head in binding.heads if head[0] in layers]
    chosen = binding.choose(among, alternative="less")
    split = chosen.split
    ceiling = -binding.floor(split)

    def lowers(who, name):
        return judge_below_ceiling(
            binding.effect(who, split=split),
            ceiling=ceiling,
            margin=binding.margin_of(who, split=split, share=-EFFECT_SHARE),
            what=f"zero-ablating {name}",
        )

    each = {head: lowers(head, head_name(head)) for head in among}
    means = binding.mean_deltas(split)
    judge(
        binding.for_some_head(
            lowers(chosen, chosen.name),
            each,
            ceiling,
            alternative="less",
            split=split,
            layers=layers,
        ),
        subject=head_name(chosen.head),
        details={
            "chosen": chosen.name,
            "judged by": split,
            "layers searched": [layers[0], layers[-1]],
            "clean LD": float(binding.baseline(split)["logit_diff"].mean()),
            "effects": {
                head_name(other): list(binding.effect(other, split=split)[:3])
                for other in sorted(binding.heads, key=means.__getitem__)[:SHOWN]
            },
        },
        heatmap=binding.heatmap(),
        largest=binding.extremes(chosen, split),
        runs=binding.runs,
    )


@pytest.mark.claim("B.2")
def test_a_late_head_sharpens(corrected_sweep, judge):
    """Some head of the last layers sharpens the output: without it the entropy is higher.

    Estimator: mean change of the entropy of the next token, in nats, of the head of the last
      quarter of the layers (at least one) whose ablation raises it most on one half of the
      examples, judged by the other half, and the reverse.
    Threshold: the 98 % interval (see H1.1) over fact clusters lies above .05 nats and the numerical
      noise.
    Refuted if: the interval of every head of these layers lies below that floor and not above 0.
    """
    sweep = corrected_sweep
    layers = last_quarter(sweep.n_layers)
    among = [head for head in sweep.heads if head[0] in layers]
    chosen = sweep.choose(among, column="entropy")
    split = chosen.split
    floor = effect_floor(0.0, sweep.noise("entropy"), share=0.0, absolute=SHARPENS)

    def sharpens(who, name):
        return judge_above_floor(
            sweep.effect(who, split=split, column="entropy"),
            floor=floor,
            what=f"change of entropy with {name} zero-ablated",
            unit="nats",
        )

    each = {head: sharpens(head, head_name(head)) for head in among}
    means = sweep.mean_deltas(split, column="entropy")
    judge(
        sweep.for_some_head(
            sharpens(chosen, chosen.name),
            each,
            floor,
            split=split,
            layers=layers,
            column="entropy",
        ),
        subject=head_name(chosen.head),
        details={
            "chosen": chosen.name,
            "judged by": split,
            "layers searched": [layers[0], layers[-1]],
            "clean entropy": float(sweep.baseline(split)["entropy"].mean()),
            "effects": {
                head_name(head): list(sweep.effect(head, split=split, column="entropy")[:3])
                for head in sorted(among, key=means.__getitem__)[::-1][:SHOWN]
            },
        },
        runs=sweep.runs,
    )


def middle_half(n_layers):
    """6 to 17 of 24 layers, 1 and 2 of 4."""
    return range(n_layers // 4, n_layers - n_layers // 4)


def last_quarter(n_layers):
    """18 to 23 of 24 layers, 3 of 4; the last one of fewer than 8."""
    return range(n_layers - max(1, n_layers // 4), n_layers)
