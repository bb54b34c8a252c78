"""Claims of the literature's pack asked of a model in a folder, outside of a session."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.conditions import CONDITIONS
from tests.benches import CORPORA
from tests.trained_circuit import known_facts
from tinyablation.analysis.findings import Findings
from tinyablation.corpora.defects import LEAST_CLUSTERS
from tinyablation.corpora.own_conditions import OwnCondition, read_own
from tinyablation.measurement.attention_readings import RandomTokens, RepeatedTokens
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import ModelEntry
from tinyablation.runs.store import RunStore


class Judged(Exception):
    """A claim's verdict: what follows is not done, as in a session."""


def verdict(claim, **given):
    def judge(found, **shown):
        raise Judged(found)

    with pytest.raises(Judged) as caught:
        claim(**given, judge=judge)
    return caught.value.args[0]


def conditions(folder: Path, **rows: Iterable[dict[str, str]]) -> dict[str, OwnCondition]:
    """Conditions of these rows; facts, whose name is the project's, are read by another."""
    read = {}
    for name, each in rows.items():
        path = folder / f"asked_{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in each), encoding="utf-8")
        own = read_own(path.stem, path)
        read[name] = replace(own, name=name, least=LEAST_CLUSTERS)
    return read


def findings(
    folder: Path, source: Path, steps: tuple[int, ...] = (), **rows: Iterable[dict[str, str]]
) -> Findings:
    """Of the model in `source`, with those of these steps beside it; runs go to `folder`.

    rows: of conditions by name; of none: copying as the pack asks it, and the facts of Recall.
    """
    there = [{"step": step, "source": source.parent / f"step{step}"} for step in steps]
    plain = {"id": source.name, "title": "Made", "family": "other", "variant": "plain", "bos": True}
    entry = ModelEntry.model_validate({**plain, "source": source, "checkpoints": there})
    names = ("repeats", "natural_repeats")
    asked = rows or {"facts": known_facts(), **{name: CONDITIONS[name]() for name in names}}
    own = conditions(folder, **asked)
    setup = Setup(entry=entry, corpora=CORPORA)
    return Findings(Bench(setup, RunStore(folder / "runs"), own=own, threads=1))


def knockout_of(found: Findings):
    """As the fixture: sets of heads zeroed together, under a condition that must be valid."""

    def knockout(condition, *sets):
        assert found.bench.gate.reason_blocked(condition) is None
        return found.knockouts(condition, *sets)

    return knockout


def given(found: Findings) -> dict[str, object]:
    """What claims about induction ask for."""
    return {
        "repeated_tokens": found.attention(RepeatedTokens()),
        "random_tokens": found.attention(RandomTokens()),
        "knockout": knockout_of(found),
        "findings": found,
    }


def came(claim, fixtures, **more):
    names = claim.__code__.co_varnames[: claim.__code__.co_argcount]
    asked = {name: each for name, each in {**fixtures, **more}.items() if name in names}
    return verdict(claim, **asked)
