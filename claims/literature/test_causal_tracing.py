"""ROME: where facts are restored after noise (Meng et al. 2022, arXiv:2202.05262).

Gaussian noise of three standard deviations is added to the subject's embeddings, in three draws;
then the outputs of a window of MLPs or attentions, a fifth of the layers, are put back at the
subject's last token.
"""

import numpy as np
import pytest

from tinyablation.records.splits import CONFIRMATION
from tinyablation.verdicts.verdicts import judge_above_floor

TOKEN = "subject-last"


@pytest.mark.claim("ROME.1", conditions="facts")
def test_mlps_restore_more_than_attentions(trace, judge):
    """At the subject's last token MLPs restore more of a fact than attentions do.

    Estimator: mean probability of the answer that the window of MLPs restores, minus that of the
      window of attentions, each where it restores most on discovery; on confirmation, paired.
    Threshold: the 95 % interval over clusters lies above 0 and the noise.
    Refuted if: the interval lies below that.
    Audit: planted control, rescue
    """
    peaks = {part: trace.peak(part, TOKEN) for part in ("mlp", "attention")}
    mlps, attentions = (trace.restored(part, peaks[part], TOKEN) for part in peaks)
    lead = trace.interval(mlps - attentions, CONFIRMATION, "MLPs beyond attentions")
    verdict = judge_above_floor(
        lead,
        floor=trace.zero("target_probability"),
        what=f"restored by MLPs around layer {peaks['mlp']} beyond attentions",
        unit="probability",
    )
    judge(verdict, details=_shown(trace, peaks), runs=trace.runs)


@pytest.mark.claim("ROME.2", conditions="facts")
def test_early_mlps_restore_more_than_late_ones(trace, judge):
    """At the subject's last token MLPs of the first half of the layers restore more than others.

    Estimator: mean probability of the answer that a window of MLPs restores, over the first half of
      the layers minus over the second, on all confirmation prompts, paired.
    Threshold: the 95 % interval over clusters lies above 0 and the noise.
    Refuted if: the interval lies below that.
    Audit: planted control, rescue
    """
    layers = [trace.restored("mlp", layer, TOKEN) for layer in range(trace.n_layers)]
    middle = trace.n_layers // 2
    ahead = np.mean(layers[:middle], axis=0) - np.mean(layers[middle:], axis=0)
    verdict = judge_above_floor(
        trace.interval(ahead, CONFIRMATION, "early MLPs beyond late ones"),
        floor=trace.zero("target_probability"),
        what=f"restored by MLPs of the first {middle} layers beyond later ones",
        unit="probability",
    )
    judge(verdict, details=_shown(trace, {"mlp": trace.peak("mlp", TOKEN)}), runs=trace.runs)


def _shown(trace, peaks):
    """What noise takes away, and the layers at which most is restored."""
    return {
        "total effect": list(trace.total()[:3]),
        **{f"peak of {part}": layer for part, layer in peaks.items()},
        **{
            f"restored by {part}": list(trace.indirect(part, layer, TOKEN)[:3])
            for part, layer in peaks.items()
        },
    }
