"""The engine's table while it is being filled, and as a data frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.examples import EngineError
from tinyablation.interventions import AblateHeads, Intervention, heads_label
from tinyablation.metrics import FLOAT_FIGURES, INTEGER_FIGURES

if TYPE_CHECKING:
    import pandas


class Results:
    """The figures by (intervention, example); row 0 is the baseline; NaN and -1 until written."""

    def __init__(self, n_interventions: int, n_examples: int) -> None:
        shape = n_interventions, n_examples
        self.n_examples = n_examples
        self.floats = {name: np.full(shape, np.nan) for name in FLOAT_FIGURES}
        self.integers = {name: np.full(shape, -1, dtype=np.int64) for name in INTEGER_FIGURES}

    def write(self, position: int, which: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """Enter figures, [examples] each, for the examples `which` of one intervention."""
        for name, values in found.items():
            (self.floats if name in self.floats else self.integers)[name][position, which] = values

    def frame(self, interventions: Sequence[Intervention]) -> "pandas.DataFrame":
        """The table, as Engine.measure describes it."""
        import pandas

        names: list[tuple[str, str, str, int, int, float]] = [("baseline", "none", "", -1, -1, 1.0)]
        for i in interventions:
            layer, head = i.heads[0] if len(i.heads) == 1 else (-1, -1)
            method, scale = (
                (i.method, 0.0) if isinstance(i, AblateHeads) else ("scale", float(i.scale))
            )
            names.append((i.label, method, heads_label(i.heads), layer, head, scale))
        n = self.n_examples
        columns: dict[str, object] = {
            key: np.repeat(np.array(values, dtype=kind), n)
            for (key, kind), values in zip(
                {
                    "intervention": object,
                    "method": object,
                    "heads": object,
                    "layer": np.int64,
                    "head": np.int64,
                    "scale": np.float64,
                }.items(),
                zip(*names, strict=True),
                strict=True,
            )
        }
        columns["example"] = np.tile(np.arange(n, dtype=np.int64), len(names))
        order = (
            "logit_diff",
            "target_logit",
            "foil_logit",
            "target_probability",
            "target_rank",
            "argmax",
            "kl",
            "entropy",
        )
        for name in order:
            source = self.floats.get(name)
            columns[name] = (self.integers[name] if source is None else source).ravel()
        frame = pandas.DataFrame(columns)
        unwritten = int(frame["logit_diff"].isna().sum())
        if unwritten:  # pragma: no cover - a defect of the engine itself
            raise EngineError(f"{unwritten} rows were never measured; this is a bug")
        return frame
