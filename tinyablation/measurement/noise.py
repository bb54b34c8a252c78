"""Numerical noise: how far a figure moves if the same batch is repeated, or batched differently.

Floating-point sums depend on their order, and a library may choose another order for another batch
shape, or for every call. Differences between measurements of the same thing are noise.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinyablation.records.trust import NoiseRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def spread(ways: "Sequence[NDArray[np.float64]]", *, of_changes: bool) -> float:
    """The largest difference between any two ways of measuring the same thing.

    ways: [interventions, examples] each, the unhooked model first. of_changes: compare changes
    relative to it; else compare the figures themselves.
    """
    import numpy as np

    stacked = np.stack([way - way[:1] if of_changes else way for way in ways])
    return float((stacked.max(axis=0) - stacked.min(axis=0)).max())


def noise_rows(documents: Iterable[Mapping[str, Any]]) -> list[NoiseRow]:
    """The noise of a session's runs by device and dtype, in logits, the largest seen of each kind.

    documents: the contents of their verify.json. Those without a device or without repetitions (no
    logit difference was measured) are left out.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for document in documents:
        where, figures = document.get("measured"), document.get("logit_diff")
        if not isinstance(where, Mapping) or not {"device", "dtype"} <= where.keys():
            continue
        if isinstance(figures, Mapping) and {"repeat", "shape"} <= figures.keys():
            key = str(where["device"]), str(where["dtype"])
            found.setdefault(key, []).append(figures)
    rows = []
    for (device, dtype), runs in sorted(found.items()):
        references = [run["reference"] for run in runs if run.get("reference") is not None]
        rows.append(
            NoiseRow(
                device=device,
                dtype=dtype,
                runs=len(runs),
                repeat=max(run["repeat"] for run in runs),
                shape=max(run["shape"] for run in runs),
                reference=max(references) if references else None,
            )
        )
    return rows
