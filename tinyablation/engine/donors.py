"""Donor prompts from other clusters for resample ablation, drawn per prompt by the seed."""

from collections.abc import Sequence

import numpy as np

from tinyablation.engine.prompt_checks import EngineError, Ids


def draw_donors(
    prompts: Sequence[Ids],
    clusters: Sequence[str] | None,
    reference: Sequence[Ids],
    reference_clusters: Sequence[str] | None,
    seed: int,
    *,
    purpose: str = "resample",
    longer: bool = True,
) -> list[Ids]:
    """One donor from `reference` for every prompt, from a cluster other than the prompt's.

    A donor has the prompt's token length if an admissible one exists; otherwise, if `longer` allows
    it, it is longer (its last tokens are used). Without clusters every distinct prompt is its own
    cluster. Without reference_clusters a reference prompt has the clusters that it has among
    `prompts`. The generator is made from (seed, purpose, the prompt's ids), so a donor depends
    neither on the other prompts measured nor on the order of the reference.

    Raises EngineError, which names the example, if no donor is possible.
    """
    if clusters is None:
        clusters = [repr(ids) for ids in prompts]
        reference_clusters = [repr(ids) for ids in reference]
    members: dict[Ids, set[str]] = {}
    if reference_clusters is None:
        known: dict[Ids, set[str]] = {}
        for ids, cluster in zip(prompts, clusters, strict=True):
            known.setdefault(ids, set()).add(cluster)
        for index, ids in enumerate(reference):
            if ids not in known:
                raise EngineError(
                    f"reference prompt {index} is not among the prompts, so its cluster is "
                    "unknown; give reference_clusters"
                )
            members[ids] = known[ids]
    else:
        for ids, cluster in zip(reference, reference_clusters, strict=True):
            members.setdefault(ids, set()).add(cluster)
    by_length: dict[int, list[Ids]] = {}
    for ids in sorted(members):
        by_length.setdefault(len(ids), []).append(ids)
    donors = []
    for example, (ids, cluster) in enumerate(zip(prompts, clusters, strict=True)):

        def admissible(lengths: Sequence[int], ids: Ids = ids, cluster: str = cluster) -> list[Ids]:
            return [
                donor
                for length in lengths
                for donor in by_length.get(length, ())
                if donor != ids and cluster not in members[donor]
            ]

        candidates = admissible([len(ids)]) or (
            admissible(sorted(length for length in by_length if length > len(ids)))
            if longer
            else []
        )
        if not candidates:
            raise EngineError(
                f"example {example} ({len(ids)} tokens, cluster {cluster!r}) has no donor "
                f"({purpose}): no prompt of another cluster that could lend is as long; add one"
            )
        entropy = [seed, *purpose.encode(), *ids]
        donors.append(candidates[int(np.random.default_rng(entropy).integers(len(candidates)))])
    return donors
