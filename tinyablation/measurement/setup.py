"""What a bench is asked to measure, in plain values: one list, here and on other machines."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tinyablation.interventions.batteries import PER_RELATION
from tinyablation.measurement.precision import TRUSTED_DEVICE
from tinyablation.measurement.protocols import CORRECTED
from tinyablation.models.registry import ModelEntry


class Setup(BaseModel):
    """The model, the corpora, and all that decides which figures are measured of them.

    corpora: the folder with a folder of corpora per tokenizer; battery: that of `sweep`; device: a
    torch device name ("cuda:1"); dtype: the run's, the entry's when None; protocol: "corrected", or
    "published" to measure the way the study did (see protocols); share: of the fact clusters of
    each split, drawn by the seed; per_relation: of a crossed corpus, the examples of each relation
    that are swept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: ModelEntry
    corpora: Path
    battery: str = "zero"
    seed: int = 0
    device: str = TRUSTED_DEVICE
    dtype: str | None = None
    protocol: str = CORRECTED
    share: float = 1.0
    per_relation: int = PER_RELATION

    def of(self, entry: ModelEntry) -> "Setup":
        """The same of another model."""
        return self.model_copy(update={"entry": entry})
