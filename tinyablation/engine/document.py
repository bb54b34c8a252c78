"""A measurement whose result is a document, not a table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Computed(NamedTuple):
    """The result of a measurement: a document of JSON values, and tensors by name."""

    document: dict[str, Any]
    tensors: Mapping[str, np.ndarray] = MappingProxyType({})
