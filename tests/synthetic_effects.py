"""Tables of effects whose answer is known: no model behind them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas

from tinyablation.analysis.coalitions import Coalitions
from tinyablation.analysis.effects import Effects
from tinyablation.analysis.patching import Patches
from tinyablation.analysis.path_patching import PathEffects
from tinyablation.heads import head_name
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchPath,
    PatchResidual,
)
from tinyablation.verdicts.subjects import Subject

N_CLUSTERS, PER_CLUSTER = 24, 2
N = N_CLUSTERS * PER_CLUSTER
HEADS = tuple((0, head) for head in range(8))
TRIO = ((0, 0), (0, 2), (0, 5))
LEADER = (0, 2)
NAMED = Subject(
    suppressor=head_name(LEADER), trio=[head_name(head) for head in TRIO], source="planted"
)
LAYERS = 4


def stacked(
    n: int, common: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]
) -> pandas.DataFrame:
    """A table of blocks of n rows, one below the other; columns are [n], or one value for all rows.

    common: the columns that are alike in every block. A frame for each block, and their
    concatenation, would take thirty times as long.
    """
    columns = {
        name: np.tile(np.broadcast_to(each, n), len(blocks)) for name, each in common.items()
    }
    for name in blocks[0]:
        own = [np.broadcast_to(block[name], n) for block in blocks]
        columns[name] = np.concatenate(own)
    return pandas.DataFrame(columns)


def make_table(
    changes: Mapping[str, np.ndarray | float],
    *,
    clean_ld: float = 4.0,
    interventions: Sequence[Intervention] = (),
    seed: int = 0,
    entropy: Mapping[str, np.ndarray | float] | None = None,
) -> pandas.DataFrame:
    """Baseline and one block of rows per label, its LD moved by `changes` ([N] or a number)."""
    by_label = {each.label: each for each in interventions}
    rng = np.random.default_rng(seed)
    cluster = np.arange(N) // PER_CLUSTER
    clean = clean_ld + rng.normal(0, 0.4, N_CLUSTERS)[cluster] + rng.normal(0, 0.1, N)
    common = {
        "example": np.arange(N),
        "split": np.where(cluster % 2 == 0, "discovery", "confirmation"),
        "fact_id": [f"fact{number}" for number in cluster],
        "cluster_id": [f"fact{number}" for number in cluster],
        "template_id": "plain.is",
        "cell": "",
        "clean": [f"prompt {number}" for number in range(N)],
        "target": np.where(np.arange(N) % 2 == 0, " yes", " no"),
        "foil": np.where(np.arange(N) % 2 == 0, " no", " yes"),
        "target_probability": 0.5,
        "target_rank": 0,
        "kl": 0.0,
    }
    none = {"layer": -1, "head": -1, "heads": "", "donor": "", "method": "none", "entropy": 2.0}
    blocks = [{**none, "intervention": "baseline", "logit_diff": clean}]
    for label, change in changes.items():
        each = by_label.get(label)
        columns = {
            "intervention": label,
            "method": getattr(each, "method", "patch"),
            "heads": label.split(":")[1] if isinstance(each, AblateHeads) else "",
            "donor": getattr(each, "donor", ""),
            "layer": -1,
            "head": -1,
            "logit_diff": clean + change,
            "entropy": 2.0 + (entropy or {}).get(label, 0.0),
        }
        blocks.append(columns)
    return stacked(N, common, blocks)


def noise(size: float, seed: int) -> np.ndarray:
    """[N] by example, most of it shared by a cluster."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(N) // PER_CLUSTER
    drawn = rng.normal(0, size, N_CLUSTERS)[cluster] + rng.normal(0, size / 3, N)
    # Clusters alternate between the splits: mean 0 in each, so that planted figures are exact.
    for half in (0, 1):
        drawn[cluster % 2 == half] -= drawn[cluster % 2 == half].mean()
    return drawn


def make_coalitions(
    alone: Mapping[tuple[int, int], float],
    *,
    extra: Mapping[int, np.ndarray | float] | None = None,
    spread: float = 0.1,
    clean_ld: float = 4.0,
    entropy: float = 0.0,
) -> Coalitions:
    """All sets of up to three heads; a set's Delta is the sum of its heads', plus extra[size].

    entropy: the change of entropy when the whole of TRIO is ablated, in nats.
    """
    from itertools import combinations

    own = {
        head: alone.get(head, 0.0) + noise(spread, 100 + number)
        for number, head in enumerate(HEADS)
    }
    changes, interventions, entropies = {}, [], {}
    for size in (1, 2, 3):
        for heads in combinations(HEADS, size):
            each = AblateHeads(heads)
            interventions.append(each)
            changes[each.label] = sum(own[head] for head in heads) + (extra or {}).get(size, 0.0)
            if heads == TRIO:
                entropies[each.label] = entropy + noise(abs(entropy) / 10, 7)
    table = make_table(changes, interventions=interventions, clean_ld=clean_ld, entropy=entropies)
    return Coalitions("made-up", "facts", table, 1e-6, runs=("made-up-run",))


def make_patches(
    denoising: Mapping[tuple[int, str], float],
    noising: Mapping[tuple[int, str], float],
    *,
    spread: float = 0.02,
    flat: float | None = None,
    sham: float = 0.0,
    clean_ld: float = 4.0,
    windows: Mapping[int, float] | None = None,
    repeated: Collection[int] = (),
    seed: int = 0,
) -> Patches:
    """Residual patches whose recovery by (layer, positions) is given, 0 elsewhere.

    flat: every patch recovers just this much, at every layer; clean_ld: of the clean prompts, and
    -clean_ld of the corrupt ones; windows: by what a window's recoveries are multiplied; repeated:
    windows that do in every example what their first layer does alone.
    """
    clean, corrupt = make_table({}, clean_ld=clean_ld), make_table({}, clean_ld=-clean_ld, seed=1)
    gap = clean["logit_diff"].to_numpy() - corrupt["logit_diff"].to_numpy()
    made = []
    for name, wanted, sign in (("denoising", denoising, 1.0), ("noising", noising, -1.0)):
        changes, interventions = {}, []
        for layer in range(LAYERS):
            for where in ("last", "subject", "all"):
                for window in (0, 1, 2) if where != "all" else (0,):
                    for donor in ("pair", "self", "other") if not window else ("pair",):
                        each = PatchResidual(layer, window=window, positions=where, donor=donor)
                        first = max(0, layer - window) if window in repeated else layer
                        share = wanted.get((first, where), 0.0) if donor == "pair" else 0.0
                        factor = (windows or {}).get(window, 1.0)
                        share *= factor
                        drawn = f"{name} {first} {where} {seed}"
                        drawn += f" {window}" if window and window not in repeated else ""
                        jitter = noise(spread, crc32(drawn.encode()))
                        if flat is not None and donor == "pair":
                            share, jitter = flat * factor, np.zeros(N)
                        if where == "all" and donor == "pair":
                            share, jitter = 1.0, np.zeros(N)
                        if donor != "pair":
                            jitter = np.full(N, sham)
                        interventions.append(each)
                        changes[each.label] = sign * (share + jitter) * gap
        own_ld, own_seed = (-clean_ld, 1) if name == "denoising" else (clean_ld, 0)
        table = make_table(changes, interventions=interventions, clean_ld=own_ld, seed=own_seed)
        made.append(Effects("made-up", "facts", table, 1e-6, runs=(f"made-up-{name}",)))
    return Patches(made[0], made[1], LAYERS, 8)


def make_paths(total: float, shares: Mapping[int, float], *, spread: float = 0.05) -> PathEffects:
    """A head's paths; shares by receiver layer of its whole effect."""
    whole = total + noise(spread, 3)
    ablation = AblateHeads((LEADER,))
    changes, interventions = {ablation.label: whole}, [ablation]
    for layer in range(1, LAYERS + 1):
        each = PatchPath((LEADER,), layer)
        interventions.append(each)
        changes[each.label] = shares.get(layer, 0.0) * whole + noise(spread / 5, 40 + layer)
    table = make_table(changes, interventions=interventions)
    return PathEffects(
        "made-up", "facts", table, 1e-6, runs=("made-up-run",), head=LEADER, n_layers=LAYERS
    )


def share_of_clean(measured: Any, share: float) -> Any:
    """The same measurement, where every intervention moves LD by this share of the clean one.

    Its own interval is as wide as the spread of the clean LD; beyond a share of it there is hardly
    any spread, so that only a margin by example tells the two shares apart.
    """
    table = measured.table
    clean = table[table["method"] == "none"].set_index("example")["logit_diff"]
    moved = (1 + share * (table["method"] != "none")) * clean.loc[table["example"]].to_numpy()
    return replace(measured, table=table.assign(logit_diff=moved), _cache={})
