"""SINK: attention sinks (Gu et al. 2024, arXiv:2410.10781; layers: arXiv:2606.02378).

A head is a sink on a sequence if its attention to the first token, the mean over queries, exceeds
.3. Sequences are of 64 tokens, 100 of each kind, as in the paper.
"""

import pytest

from tinyablation.analysis.attention import SINK_THRESHOLD
from tinyablation.analysis.coalitions import set_name
from tinyablation.corpora.examples import BOTH
from tinyablation.verdicts.verdicts import blocked, judge_above_floor, judge_below_ceiling

MOST = 0.5
FEW = 0.1
FIRST_LAYERS = (0, 1)
ZEROED = 5  # as many as the induction heads of IND.2 at most


@pytest.mark.claim("SINK.1")
def test_most_heads_attend_to_the_first_token(random_tokens, judge):
    """Most heads attend to the first token.

    Estimator: share of heads that are sinks on random tokens, the mean over all sequences. The
      first is BOS where the model has one, and random elsewhere.
    Threshold: the 95 % interval over sequences lies above .5.
    Refuted if: the interval lies below that.
    Audit: planted control
    """
    share = random_tokens.share("sink", SINK_THRESHOLD)
    verdict = judge_above_floor(
        share, floor=MOST, what="share of heads that are sinks", unit="share"
    )
    judge(verdict, runs=random_tokens.runs)


@pytest.mark.claim("SINK.2")
def test_sinks_vanish_where_no_token_is_the_first(one_token, judge):
    """Sinks vanish where all tokens are the same, so that none differs from the first.

    Estimator: share of heads that are sinks on one token written 64 times, without BOS, the mean
      over all sequences. (Under rotary embeddings all positions are then alike.)
    Threshold: the 95 % interval over sequences lies below .1.
    Refuted if: the interval lies above that.
    Audit: planted control
    """
    share = one_token.share("sink", SINK_THRESHOLD)
    verdict = judge_below_ceiling(
        share, ceiling=FEW, what="share of heads that are sinks on one token repeated", unit="share"
    )
    judge(verdict, runs=one_token.runs)


@pytest.mark.claim("SINK.3")
def test_the_first_two_layers_have_no_sinks(random_tokens, judge):
    """Hardly any head of the first two layers is a sink.

    Estimator: share of the heads of layers 0 and 1 that are sinks on random tokens, the mean over
      all sequences.
    Threshold: the 95 % interval over sequences lies below .1.
    Refuted if: the interval lies above that.
    Audit: planted control
    """
    share = random_tokens.share("sink", SINK_THRESHOLD, layers=FIRST_LAYERS)
    verdict = judge_below_ceiling(
        share, ceiling=FEW, what="share of heads of layers 0 and 1 that are sinks", unit="share"
    )
    sinks = [
        head
        for head in random_tokens.heads
        if head.layer in FIRST_LAYERS
        and random_tokens.estimate("sink", head, BOTH, alike=True).low > SINK_THRESHOLD
    ]
    judge(verdict, details={"sinks": set_name(sinks) or "none"}, runs=random_tokens.runs)


@pytest.mark.claim("SINK.4", conditions="repeats")
def test_zeroing_sinks_spares_copying(random_tokens, condition, knockout, judge):
    """Zero-ablating the heads that attend most to the first token spares in-context copying.

    Estimator: share of LD that is lost without the five heads whose attention to the first token is
      largest on the first half of the random sequences. Confirmation split.
    Threshold: the 90 % interval over clusters lies within +- .1 (two one-sided tests).
    Refuted if: the 95 % interval lies outside +- .1.
    Audit: planted control, selection correction
    """
    heads = random_tokens.above("sink", SINK_THRESHOLD)[:ZEROED]
    if not heads:
        judge(blocked(f"no head of {random_tokens.model} is a sink"))
    without = knockout(condition, heads)
    judge(
        without.spares(heads),
        subject=set_name(heads),
        runs=[*random_tokens.runs, *without.runs],
    )
