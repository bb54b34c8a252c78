"""LAYER: what the removal of a layer does to SmolLM2-135M (arXiv:2603.19348, its abstract).

A removed layer passes the residual stream on unchanged. The loss is the mean negative
log-likelihood of the tokens of 32 passages of public text; exp(change) is the factor of perplexity.
"""

import math

import pytest

from tinyablation.verdicts.verdicts import judge_above_floor, judge_all_of, judge_below_ceiling

MODEL = "smollm2-135m"  # of no other model are these layers named
CRITICAL, BETTER_WITHOUT = (8, 9, 10, 11), (14, 17)
TWICE = math.log(2)  # nats: perplexity doubles


@pytest.mark.claim("LAYER.1", models=MODEL)
def test_four_layers_are_critical(layer_removal, judge):
    """Layers 8 to 11 are critical: without any of them perplexity more than doubles.

    Estimator: mean change of the loss without the layer, in nats per token, paired by passage.
    Threshold: the 95 % interval over passages lies above log 2 for each of the four
      (intersection-union: no correction).
    Refuted if: for one of them it lies below that, with p <= .025 / 4.
    Audit: planted control
    """
    parts = [
        judge_above_floor(
            layer_removal.change(layer),
            floor=TWICE,
            what=f"change of the loss without layer {layer}",
            unit="nats per token",
        )
        for layer in CRITICAL
    ]
    judge(judge_all_of(parts), details=_shown(layer_removal), runs=layer_removal.runs)


@pytest.mark.claim("LAYER.2", models=MODEL)
def test_two_layers_are_better_left_out(layer_removal, judge):
    """Removing layer 14 improves the model, and so does removing layer 17: perplexity falls.

    Estimator: mean change of the loss without the layer, in nats per token, paired by passage.
    Threshold: the 95 % interval over passages lies below 0 and the noise for both layers
      (intersection-union: no correction).
    Refuted if: for one of them it lies above that, with p <= .0125.
    Audit: planted control
    """
    parts = [
        judge_below_ceiling(
            layer_removal.change(layer),
            ceiling=-layer_removal.noise,
            what=f"change of the loss without layer {layer}",
            unit="nats per token",
        )
        for layer in BETTER_WITHOUT
    ]
    judge(judge_all_of(parts), details=_shown(layer_removal), runs=layer_removal.runs)


def _shown(layer_removal):
    """Perplexity, and the change without every layer, for whoever asks for others."""
    means = layer_removal.changes().mean(axis=0)
    return {
        "perplexity": layer_removal.perplexity,
        "change without each layer": {str(n): float(mean) for n, mean in enumerate(means)},
    }
