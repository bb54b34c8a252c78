"""The engine's table: filled figure by figure, then converted to a data frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyablation.engine.logit_metrics import FLOAT_FIGURES, INTEGER_FIGURES
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.tables import BASELINE, COLUMNS, ENGINE_COLUMNS
from tinyablation.heads import heads_label
from tinyablation.interventions.interventions import Intervention
from tinyablation.interventions.sites import BASELINE_COLUMNS, Columns

if TYPE_CHECKING:
    import pandas

# The column that equals each figure of a whole answer if the answer is one token.
SPAN_FIGURES = {
    "seq_logprob_diff": "logit_diff",
    "seq_probability": "target_probability",
    "seq_kl_mean": "kl",
}


class Results:
    """The figures by (intervention, example); row 0 is the baseline; NaN and -1 until written."""

    def __init__(self, n_interventions: int, n_examples: int) -> None:
        shape = n_interventions, n_examples
        self.n_examples = n_examples
        self.floats = {name: np.full(shape, np.nan) for name in FLOAT_FIGURES}
        self.integers = {name: np.full(shape, -1, dtype=np.int64) for name in INTEGER_FIGURES}

    def write(self, position: int, which: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """Store figures, [examples] each, for the examples `which` of one intervention."""
        for name, values in found.items():
            (self.floats if name in self.floats else self.integers)[name][position, which] = values

    def has(self, position: int, example: int) -> bool:
        """Whether this example's figures for this intervention are stored."""
        return not np.isnan(self.floats["logit_diff"][position, example])

    def frame(self, interventions: Sequence[Intervention]) -> "pandas.DataFrame":
        """The table, as Engine.measure describes it."""
        import pandas

        described = [(BASELINE, BASELINE_COLUMNS), *((i.label, i.columns) for i in interventions)]
        n = self.n_examples
        of_rows: dict[str, Sequence[object]] = {"intervention": [label for label, _ in described]}
        of_rows |= zip(Columns._fields, zip(*(of for _, of in described), strict=True), strict=True)
        of_rows["heads"] = [heads_label(of.heads) for _, of in described]
        columns: dict[str, object] = {}
        for name in ENGINE_COLUMNS:
            # A target is one token here, so the span is that token; log p(target) - log p(foil)
            # equals the logit difference, because the logarithm of the sum cancels.
            figure = SPAN_FIGURES.get(name, name)
            if name == "example":
                columns[name] = np.tile(np.arange(n, dtype=np.int64), len(described))
            elif name in of_rows:
                dtype, values = COLUMNS[name].dtype, of_rows[name]
                if dtype == "string":  # converted before they are repeated: a text a row takes long
                    columns[name] = pandas.Series(values).array.repeat(n)
                else:
                    columns[name] = np.repeat(np.array(values, dtype=dtype), n)
            elif figure in self.floats:
                columns[name] = self.floats[figure].ravel()
            else:
                columns[name] = self.integers[figure].ravel()
        frame = pandas.DataFrame(columns)
        unwritten = int(frame["logit_diff"].isna().sum())
        if unwritten:  # pragma: no cover - a defect of the engine itself
            raise EngineError(f"{unwritten} rows were never measured; this is a bug")
        return frame
