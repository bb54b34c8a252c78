"""Synthetic runs for the tests of run directories: a model of 4 layers x 3 heads, no torch.

As a script (`python synthetic_runs.py ROOT LOG SECONDS [KEY...]`) it obtains the run in a process
of its own, or has only the shards of those KEYs computed, appending each shard that it computes to
LOG and sleeping SECONDS in each.
"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tinyablation.interventions.batteries import Battery, Shard
from tinyablation.runs.address import RunConfig
from tinyablation.runs.store import TABLES, Run, RunStore

N_LAYERS, N_HEADS, N_EXAMPLES = 4, 3, 12
SUPPRESSOR = "0.2"
SMALL = Battery("h1", ("zero", "mean"))
# One shard a layer, where the battery itself would make one of them all: there is more to go wrong.
SHARDS = [
    Shard("baseline", ()),
    *(
        Shard(
            f"L{layer:02d}",
            tuple(
                each
                for shard in SMALL.shards(N_LAYERS, N_HEADS)
                for each in shard.interventions
                if each.heads[0][0] == layer
            ),
        )
        for layer in range(N_LAYERS)
    ),
]
KEYS = [shard.key for shard in SHARDS]


def make_config(**changes) -> RunConfig:
    fields = {
        "model": "tiny-gpt2",
        "battery": "h1",
        "condition": "facts",
        "weight_hash": "a" * 64,
        "config_hash": "e" * 64,
        "tokenizer_hash": "b" * 64,
        "corpus_hash": "c" * 64,
        "split_hash": "d" * 64,
        "engine_version": "1",
        "dtype": "float32",
        "device": "cpu",
        "seed": 0,
        "bos": False,
    }
    return RunConfig(**{**fields, **changes})


def make_examples(n: int = N_EXAMPLES) -> pd.DataFrame:
    numbers = range(n)
    return pd.DataFrame(
        {
            "split": ["discovery" if i % 2 else "confirmation" for i in numbers],
            "fact_id": [f"fact-{i // 2}" for i in numbers],
            "cluster_id": [f"cluster-{i // 2}" for i in numbers],
            "template_id": [f"t{i % 3}" for i in numbers],
            "cell": ["" for i in numbers],
            "clean": [f"The capital <{i}> of é is" for i in numbers],
            "target": [f" T{i}" for i in numbers],
            "foil": [f" F{i}" for i in numbers],
        }
    )


def rows_of(label: str, *, method: str, heads: str, layer: int, head: int, n: int = N_EXAMPLES):
    def draws(text: str) -> np.random.Generator:
        return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))

    clean = draws("baseline").normal(1.0, 0.5, n)
    change = np.zeros(n)
    if heads:
        change = draws(label).normal(0.5 if heads == SUPPRESSOR else -0.02, 0.01, n)
    logit_diff = clean + change
    probability = 1 / (1 + np.exp(-logit_diff))
    return pd.DataFrame(
        {
            "intervention": label,
            "method": method,
            "heads": heads,
            "layer": layer,
            "head": head,
            "scale": 0.0 if heads else 1.0,
            "granularity": "head" if head >= 0 else "",
            "window": 0,
            "positions": "all" if head >= 0 else "",
            "donor": "",
            "example": np.arange(n),
            "logit_diff": logit_diff,
            "target_logit": logit_diff,
            "foil_logit": np.zeros(n),
            "target_probability": probability,
            "target_rank": (logit_diff < 1).astype("int64"),
            "argmax": np.where(logit_diff > 1, 7, 8),
            "kl": np.abs(change),
            "entropy": np.full(n, 0.5),
            "seq_logprob_diff": logit_diff,
            "seq_probability": probability,
            "seq_kl_mean": np.abs(change),
        }
    )


def baseline_rows(n: int = N_EXAMPLES) -> pd.DataFrame:
    return rows_of("baseline", method="none", heads="", layer=-1, head=-1, n=n)


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a run directory, by name."""
    return {name: (folder / name).read_bytes() for name in TABLES}


def compute(shard: Shard) -> pd.DataFrame:
    """What an engine returns: its own baseline rows first, then the interventions."""
    parts = [baseline_rows()]
    for ablation in shard.interventions:
        ((layer, head),) = ablation.heads
        parts.append(
            rows_of(
                ablation.label,
                method=ablation.method,
                heads=f"{layer}.{head}",
                layer=layer,
                head=head,
            )
        )
    return pd.concat(parts, ignore_index=True)


class Counting:
    """`compute`, remembering which shards it was asked for."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, shard: Shard) -> pd.DataFrame:
        self.keys.append(shard.key)
        return compute(shard)


def verify(table: pd.DataFrame) -> dict[str, float]:
    """What a run's own check would have found: no noise at all."""
    return {"noise_floor": 0.0}


def obtain(root: Path, config: RunConfig | None = None, with_=compute, **options) -> Run:
    options.setdefault("verify", verify)
    store = RunStore(root, remeasure=options.pop("remeasure", False))
    return store.obtain(config or make_config(), SHARDS, with_, make_examples(), **options)


def without_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is half the cost of a synthetic run, and no concern of most tests."""
    monkeypatch.setattr("tinyablation.runs.heatmaps.draw_png", lambda *_: b"no picture")


def main(root: str, log: str, seconds: str, *keys: str) -> None:
    def slow(shard: Shard) -> pd.DataFrame:
        with open(log, "a", encoding="utf-8") as handle:
            handle.write(f"{shard.key}\n")
        time.sleep(float(seconds))
        return compute(shard)

    if keys:
        store, config = RunStore(Path(root)), make_config()
        store.advance(config, SHARDS, keys, slow, make_examples(), verify=verify)
    else:
        print(obtain(Path(root), with_=slow).name)


if __name__ == "__main__":
    main(*sys.argv[1:])
