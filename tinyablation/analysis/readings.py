"""What analyses of readings have in common: the document and the tensors of a reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinyablation.engine.document import Computed
from tinyablation.runs.documents import Reading


@dataclass(frozen=True)
class ReadingFigures:
    """A reading, stored or just computed. runs: the run directories that it comes from."""

    source: Reading | Computed
    runs: tuple[str, ...] = ()

    @cached_property
    def document(self) -> Mapping[str, Any]:
        source = self.source
        return source.document() if isinstance(source, Reading) else source.document

    @cached_property
    def tensors(self) -> Mapping[str, np.ndarray]:
        source = self.source
        return source.tensors() if isinstance(source, Reading) else source.tensors

    @property
    def model(self) -> str:
        return str(self.document["model"])
