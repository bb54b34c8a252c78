"""Sweeps whose answer is known: tables made up with planted effects, no model behind them."""

from collections.abc import Mapping

import numpy as np

from tests.synthetic_effects import stacked
from tinyablation.analysis.sweeps import Sweep
from tinyablation.engine.tables import PER_EXAMPLE_COLUMNS

LAYERS, HEADS = 3, 4
METHODS = ("zero", "zero_folded", "mean", "resample")


def make_sweep(
    effects: Mapping[tuple[int, int], float],
    *,
    clean_ld: float = 4.0,
    spread: float = 0.2,
    n_clusters: int = 24,
    per_cluster: int = 4,
    condition: str = "facts",
    seed: int = 0,
) -> Sweep:
    """A sweep of 3 x 4 heads with the given mean Delta LD, and none for every other head."""
    rng = np.random.default_rng(seed)
    n = n_clusters * per_cluster
    cluster = np.arange(n) // per_cluster
    # Clusters alternate between the splits, as facts do.
    split = np.where(cluster % 2 == 0, "discovery", "confirmation")
    clean = clean_ld + rng.normal(0, 0.5, n)
    common = {
        "example": np.arange(n),
        "split": split,
        "fact_id": [f"fact{number}" for number in cluster],
        "template_id": "t0",
        "cluster_id": [f"fact{number}" for number in cluster],
        "clean": [f"prompt {number}" for number in range(n)],
        "target": " yes",
        "foil": " no",
        "cell": "",
        "foil_logit": 0.0,
        "target_probability": 0.5,
        "target_rank": 0,
        "argmax": 7,
        "kl": 0.0,
        "entropy": 1.0,
        "seq_probability": 0.5,
        "seq_kl_mean": 0.0,
        "window": 0,
        "donor": "",
    }

    def of(logit_diff: np.ndarray, **columns: object) -> dict[str, object]:
        figures = dict.fromkeys(("logit_diff", "target_logit", "seq_logprob_diff"), logit_diff)
        return {**figures, **columns}

    nothing = {"intervention": "baseline", "method": "none", "heads": "", "layer": -1, "head": -1}
    rows = [of(clean, **nothing, scale=1.0, granularity="", positions="")]
    for layer in range(LAYERS):
        for head in range(HEADS):
            mean = effects.get((layer, head), 0.0)
            by_cluster = rng.normal(0, spread, n_clusters)[cluster]
            delta = mean + by_cluster + rng.normal(0, spread / 2, n)
            for method in METHODS:
                rows.append(
                    of(
                        clean + delta,
                        intervention=f"{method}:{layer}.{head}",
                        method=method,
                        heads=f"{layer}.{head}",
                        layer=layer,
                        head=head,
                        scale=0.0,
                        granularity="head",
                        positions="all",
                    )
                )
    table = stacked(n, common, rows)[list(PER_EXAMPLE_COLUMNS)]
    return Sweep("made-up", condition, table, noise_floor=1e-6, runs=("made-up-run",))
