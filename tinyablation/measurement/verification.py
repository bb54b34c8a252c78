"""Verification of a run: a sample of its figures is remeasured and compared.

In other batches and each prompt alone; figures from an accelerator or below float32 also on the CPU
in float32; and a few changes without the engine (agreement.py).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import BASELINE
from tinyablation.interventions.batteries import Shard
from tinyablation.interventions.interventions import Intervention
from tinyablation.measurement.agreement import agreement
from tinyablation.measurement.noise import spread
from tinyablation.measurement.precision import TOLERANCES, TRUSTED_DTYPE
from tinyablation.runs.store import NotVerified

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

    from tinyablation.measurement.shard_computation import Measurement

# The verified sample. In float32 on the CPU some dozens of figures show the rounding of sums; other
# devices and dtypes get four times as many.
GRAIN_SAMPLE = (4, 4)  # examples, interventions
TRUST_SAMPLE = (8, 8)
# Examples of one length measured together, and in halves: eight times the rows of a single prompt,
# at a quarter of the cost of single prompts of each length (passes over few rows cost the same).
BATCH = 16
VERIFIED_METRICS = ("logit_diff", "target_probability", "kl", "entropy")


def verify(
    measured: "Measurement", shards: Sequence[Shard], table: "pandas.DataFrame"
) -> dict[str, Any]:
    """verify.json: a sample of the run's table compared with a remeasurement.

    Each prompt of the sample is measured alone: on the same device and, if that is not the CPU in
    float32, also there, with the same engine, interventions, donors and directions (means over
    prompts are computed there too). The sample: examples of all lengths, including the shortest and
    the longest, and interventions at equal distances in the battery's order, which is by layer,
    including the first and the last. In addition a batch, because the engine computes prompts of
    one length together: examples of the commonest length, under the same interventions, measured
    twice, and half of them once.

    By metric: main (the run's, mean over the sample), verify (of each prompt alone, on the CPU
    in float32), abs_diff (between the two), largest (between any two figures) and noise, the
    largest of: repeat (between the same batch twice), shape (between the run's batches and the
    batch, half of it, or a prompt alone) and reference (between the run and the CPU in float32;
    null if that is the run's own). These three compare changes relative to the unhooked model, or
    figures if only that was measured. noise_floor is the noise of LD, in logits: without rounding
    it would be 0, so an effect that is not larger is indistinguishable from rounding. It is the
    largest of some dozens of single figures: neither a bound on the worst of all, nor the error of
    a mean over many examples, which is smaller if rounding errors are independent.

    backends, backends_not_made: see agreement.agreement.

    Raises NotVerified if a figure exceeds its tolerance, Unavailable if the CPU cannot hold the
    model in float32.
    """
    import numpy as np

    held, trusted = measured.held, measured.held.is_trusted
    n_examples, n_interventions = GRAIN_SAMPLE if trusted else TRUST_SAMPLE
    every = [item for shard in shards for item in shard.interventions]
    alone = [item for item in every if _stands_alone(item)]
    some = [alone[index] for index in _spread(len(alone), n_interventions)]
    by_length = sorted(range(len(measured.prompts)), key=lambda row: len(measured.prompts[row].ids))
    rows = sorted(by_length[index] for index in _spread(len(by_length), n_examples))
    labels = [BASELINE, *(item.label for item in some)]
    batch = _of_one_length(measured, BATCH)
    half = batch[: max(1, len(batch) // 2)]
    own = table[table["intervention"].isin(labels)].set_index(["intervention", "example"])
    once, twice = (_sampled(measured, some, [batch]) for _ in range(2))
    halved = _sampled(measured, some, [half])
    singly = _sampled(measured, some, [[row] for row in rows])
    again = measured if trusted else measured.on_the_reference()
    checked = singly if trusted else _sampled(again, some, [[row] for row in rows])
    document: dict[str, Any] = {}
    for metric in VERIFIED_METRICS:
        # [intervention, example], the unhooked model first.
        wide = own[metric].unstack("example").loc[labels].astype(float)
        main, check = wide[rows].to_numpy(), checked[metric]
        shapes = (
            (main, singly[metric]),
            (wide[batch].to_numpy(), once[metric]),
            (wide[half].to_numpy(), halved[metric], once[metric][:, : len(half)]),
        )
        changes = bool(some)
        noises = {
            "repeat": spread((once[metric], twice[metric]), of_changes=changes),
            "shape": max(spread(ways, of_changes=changes) for ways in shapes),
            "reference": None if trusted else spread((main, check), of_changes=changes),
        }
        document[metric] = {
            "main": float(main.mean()),
            "verify": float(check.mean()),
            "abs_diff": float(abs(main.mean() - check.mean())),
            "largest": float(np.abs(main - check).max()),
            "noise": max(value for value in noises.values() if value is not None),
            **noises,
        }
        if not trusted:
            _require(measured, metric, labels, rows, main, check)
    document["noise_floor"] = document["logit_diff"]["noise"]
    document["examples"] = rows
    document["batch"] = batch
    document["interventions"] = labels
    document["measured"] = {"device": held.device, "dtype": held.dtype}
    document["reference"] = {"device": again.held.device, "dtype": again.held.dtype}
    if trusted:
        document["verified"] = "each prompt alone, on the same device"
    else:
        document["tolerance"] = TOLERANCES[held.dtype]
        document["verified"] = (
            f"measured on {held.device} in {held.dtype}; each prompt alone, on the "
            f"{again.held.device} in {again.held.dtype}"
        )
    return document | agreement(measured, every, table)


def _of_one_length(measured: "Measurement", most: int) -> list[int]:
    """At most `most` examples of the commonest token length, at equal distances."""
    by_length: dict[int, list[int]] = {}
    for row, prompt in enumerate(measured.prompts):
        by_length.setdefault(len(prompt.ids), []).append(row)
    same = max(by_length.values(), key=len)
    return [same[index] for index in _spread(len(same), most)]


def _sampled(
    measured: "Measurement", interventions: Sequence[Intervention], batches: Sequence[Sequence[int]]
) -> "dict[str, NDArray[np.float64]]":
    """By verified metric, [interventions + 1, examples]: these examples, measured in batches."""
    import numpy as np

    tables = [measured.measure(interventions, batch) for batch in batches]
    return {
        metric: np.concatenate(
            [
                table[metric].to_numpy(dtype=float).reshape(len(interventions) + 1, -1)
                for table in tables
            ],
            axis=1,
        )
        for metric in VERIFIED_METRICS
    }


def _require(
    measured: "Measurement",
    metric: str,
    labels: Sequence[str],
    rows: Sequence[int],
    main: "np.ndarray[Any, Any]",
    check: "np.ndarray[Any, Any]",
) -> None:
    """Raise NotVerified unless main and check [intervention, example] agree within tolerance."""
    import numpy as np

    held = measured.held
    allowed = TOLERANCES[held.dtype] * max(1.0, float(np.abs(check).max()))
    off = np.abs(main - check)
    if off.max() <= allowed:
        return
    row, column = np.unravel_index(off.argmax(), off.shape)
    raise NotVerified(
        f"model {held.entry.id!r}, {measured.condition}, battery {measured.battery.name}: {metric} "
        f"of example {rows[column]} under {labels[row]} is {main[row, column]:.4g} on "
        f"{held.device} in {held.dtype}, and {check[row, column]:.4g} on the CPU in float32; "
        f"at most {allowed:.2g} may lie between them. The run is not kept. This device does "
        "not compute what it should: update its driver and torch, or measure with --device cpu"
        + ("" if held.dtype == TRUSTED_DTYPE else " or --dtype float32")
    )


def _stands_alone(intervention: Intervention) -> bool:
    """Whether it can be measured on one prompt alone, without a donor among other examples."""
    return (
        getattr(intervention, "method", "") != "resample"
        and getattr(intervention, "donor", "") != "other"
    )


def _spread(n: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..n-1, at equal distances, including the first and last."""
    import numpy as np

    return sorted({int(index) for index in np.linspace(0, n - 1, most).round()}) if n else []
