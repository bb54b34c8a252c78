"""Runs that were stored are found again: addresses.txt has those that claims make on this version.

A line is the name of a run (model-battery-condition_hash), the split, the examples a cluster, and
the wordings of each item ("one" in sweeps of every head). Those of few examples a cluster are of
samples that take wordings in turn. A change of what is measured has a new
engine version, and a new file.

Run: pytest tests/measurement/test_stored_addresses.py
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from tests.benches import REGISTRY, ROOT, bench_of
from tinyablation.analysis.findings import Findings
from tinyablation.interventions.batteries import UNHOOKED, Sample
from tinyablation.interventions.head_sets import TrioZeroed
from tinyablation.runs.address import RunConfig
from tinyablation.runs.store import RunStore
from tinyablation.verdicts.subjects import load_subjects

CONDITIONS = ("facts", "negation", "counterfactual", "logic", "binding")
SLOW = pytest.mark.slow
SUBJECTS = load_subjects(ROOT / "claims" / "suppressors" / "subjects.toml")


class Stored(NamedTuple):
    name: str
    split: str
    per_cluster: int
    wordings: Literal["all", "one"]

    @property
    def parts(self) -> tuple[str, str, str]:
        """The model, the battery and the condition."""
        text = self.name.rpartition("_")[0]
        model = max((each for each in REGISTRY.ids if text.startswith(f"{each}-")), key=len)
        battery, _, condition = text.removeprefix(f"{model}-").rpartition("-")
        return model, battery, condition


STORED = [
    Stored(name, split, int(number), "one" if wordings == "one" else "all")
    for name, split, number, wordings in (
        line.split()
        for line in Path(__file__).with_name("addresses.txt").read_text("utf-8").splitlines()
    )
]


@pytest.mark.parametrize(
    "model",
    [
        # One of each kind in the everyday tests: planted, control.
        model if model in ("tiny-gpt2", "tiny-llama-plain") else pytest.param(model, marks=SLOW)
        for model in REGISTRY.local_ids
    ],
)
@pytest.mark.slow
def test_every_run_has_the_address_it_had(model: str, tmp_path: Path) -> None:
    own = [stored for stored in STORED if stored.parts[0] == model]
    assert len(own) == 72 and {stored.parts[2] for stored in own} == set(CONDITIONS)
    bench = bench_of(model, tmp_path)
    for stored in own:
        _, battery, condition = stored.parts
        split = None if stored.split == "all" else stored.split
        sample = Sample(split, stored.per_cluster, stored.wordings)
        if battery.endswith("-unknown"):
            sample = replace(sample, pairs="unknown")
        if battery.startswith("unknown-words"):
            sample = UNHOOKED
        assert bench.config(condition, battery, sample).name == stored.name


class Noted(Exception):
    """A run was asked for."""


class NotingStore(RunStore):
    """Has every run's name, and no run."""

    asked: str

    def obtain(self, config: RunConfig, *_: Any, **__: Any) -> Any:
        object.__setattr__(self, "asked", config.name)
        raise Noted


@pytest.mark.parametrize("condition", ["facts", pytest.param("logic", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-neox-plain"])
def test_what_claims_read_is_asked_of_the_store_by_these_names(
    model: str, condition: str, tmp_path: Path
) -> None:
    own = bench_of(model, tmp_path)
    own.store = NotingStore(tmp_path)
    subject = SUBJECTS.for_model(model)
    assert subject is not None
    heads = subject.trio or subject.pair
    findings = Findings(own)
    reads: list[Callable[[], Any]] = [
        lambda: findings.sweep(condition),
        lambda: findings.methods(condition),
        lambda: findings.subsets(condition, heads),
        lambda: findings.coalitions(condition, heads),
        lambda: findings.patches(condition),
        lambda: findings.paths(condition, subject.suppressor),
        lambda: findings.effects(condition, TrioZeroed(heads)),
        *(lambda name=name: own.run(condition, name) for name in ("baseline", "corrupt", "null")),
    ]
    found = set()
    for read in reads:
        with pytest.raises(Noted):
            read()
        found.add(own.store.asked)
    assert len(found) == len(reads)
    assert found <= {stored.name for stored in STORED}
