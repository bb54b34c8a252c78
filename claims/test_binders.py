"""B: single heads with a trade: binders in the middle layers, sharpeners in the last.

Heads are zeroed; they are chosen on the discovery split and judged on the confirmation split.
Change = ablated - clean.
"""

import pytest

from tinyablation.heads import head_name
from tinyablation.verdicts.verdicts import judge_above_floor, judge_below_ceiling

# B.2: the share that counts for LD counts for entropy. The published .08 to .10, if they are nats
# of some 6, are less than 2 %, and would be refuted as too small.
ENTROPY_SHARE = 0.05
SHOWN = 12  # heads with figures of their own in the report


@pytest.mark.claim("B.1")
def test_a_middle_head_binds(binding, judge):
    """Some head of the middle layers binds a thing to its property, within the prompt.

    Estimator: on prompts that introduce two things and ask for one, mean Delta LD of the head of
      the middle half of the layers whose zeroing lowers LD most on the discovery split.
    Threshold: the 95 % interval over clusters lies below -5 % of the clean LD and the numerical
      noise, with p <= .05 corrected over all heads (max-T). Blocked where the model does not bind.
    Refuted if: the interval of every head of these layers lies above that.
    """
    layers = middle_half(binding.n_layers)
    means = binding.mean_deltas("discovery")
    head = min((own for own in binding.heads if own[0] in layers), key=means.__getitem__)
    ceiling = -binding.floor()
    verdict = judge_below_ceiling(
        binding.effect(head),
        ceiling=ceiling,
        p_corrected=binding.p_corrected(head, alternative="less"),
        what=f"zeroing {head_name(head)}",
    )
    judge(
        binding.for_some_head(verdict, ceiling, alternative="less", layers=layers),
        subject=head_name(head),
        details={
            "layers searched": [layers[0], layers[-1]],
            "clean LD": float(binding.baseline("confirmation")["logit_diff"].mean()),
            "effects": {
                head_name(other): list(binding.effect(other)[:3])
                for other in sorted(binding.heads, key=means.__getitem__)[:SHOWN]
            },
        },
        heatmap=binding.heatmap(),
        largest=binding.extremes(head),
        runs=binding.runs,
    )


@pytest.mark.claim("B.2")
def test_a_late_head_sharpens(corrected_sweep, judge):
    """Some head of the last layers sharpens the output: without it the entropy is higher.

    Estimator: mean change of the entropy of the next token, in nats, of the head of the last
      quarter of the layers (at least one) whose zeroing raises it most on the discovery split.
    Threshold: the 95 % interval over fact clusters lies above 5 % of the clean entropy and the
      numerical noise, with p <= .05 corrected over all heads (max-T).
    Refuted if: the interval of every head of these layers lies below that floor.
    """
    sweep = corrected_sweep
    layers = last_quarter(sweep.n_layers)
    means = sweep.mean_deltas("discovery", column="entropy")
    late = sorted((own for own in sweep.heads if own[0] in layers), key=means.__getitem__)[::-1]
    floor = sweep.floor(column="entropy", share=ENTROPY_SHARE)
    verdict = judge_above_floor(
        sweep.effect(late[0], column="entropy"),
        floor=floor,
        p_corrected=sweep.p_corrected(late[0], column="entropy"),
        what=f"change of entropy with {head_name(late[0])} zeroed",
        unit="nats",
    )
    judge(
        sweep.for_some_head(verdict, floor, layers=layers, column="entropy"),
        subject=head_name(late[0]),
        details={
            "layers searched": [layers[0], layers[-1]],
            "clean entropy": float(sweep.baseline("confirmation")["entropy"].mean()),
            "effects": {
                head_name(head): list(sweep.effect(head, column="entropy")[:3])
                for head in late[:SHOWN]
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
