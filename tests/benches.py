"""Benches of registered models, for tests. Not tests."""

from pathlib import Path
from typing import Any

from tinyablation.measurement.bench import Bench
from tinyablation.models.registry import load_registry
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parent.parent
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
CORPORA = ROOT / "corpora"


def bench_of(model: str, store: Path, corpora: Path = CORPORA, **options: Any) -> Bench:
    """A bench of a registered model, in one thread."""
    options = {"threads": 1, **options}
    return Bench(REGISTRY[model], corpora=corpora, store=RunStore(store), **options)
