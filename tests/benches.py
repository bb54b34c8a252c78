"""Benches of registered models, for tests. Not tests."""

from pathlib import Path
from typing import Any

from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parent.parent
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")
CORPORA = ROOT / "corpora"


def bench_of(model: str, store: Path, corpora: Path = CORPORA, **options: Any) -> Bench:
    """A bench of a registered model, in one thread. options: of its setup, and of the bench."""
    asked = {name: options.pop(name) for name in list(options) if name in Setup.model_fields}
    setup = Setup(entry=REGISTRY[model], corpora=corpora, **asked)
    return Bench(setup, RunStore(store), **{"threads": 1, **options})
