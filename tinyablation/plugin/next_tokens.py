"""Puts next tokens and attention beside a record's prompts, where heads were ablated there."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tinyablation.errors import ModelChanged, TinyAblationError

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench

# What Effects.largest says of a prompt for this, and records do not hold.
ASKED = ("corpus", "ablation")


def with_tokens(item: pytest.Item, largest: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The same prompts (prompts.Extreme), those of ablated heads with next tokens and attention.

    They are measured by the item's bench, once (measurement/token_readings.py). Without: by other
    methods than zeroing, under the published protocol, and where they cannot be had: for want of
    weights or of a place to write, or from evidence of earlier versions. No verdict rests on them.
    """
    found: Mapping[int, Mapping[str, Any]] = {}
    if any("ablation" in row for row in largest):
        try:
            found = _measured(item.funcargs["model"], largest)  # type: ignore[attr-defined]
        except ModelChanged:
            raise
        except TinyAblationError:
            found = {}
    return [
        {key: row[key] for key in row if key not in ASKED} | dict(found.get(place, {}))
        for place, row in enumerate(largest)
    ]


def _measured(bench: "Bench", largest: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """By the place of a prompt, its next tokens and attention, as the fields of prompts.Extreme."""
    from tinyablation.measurement.protocols import PUBLISHED
    from tinyablation.measurement.token_readings import PROMPT_FREE, NextTokens

    asked = {
        place: row
        for place, row in enumerate(largest)
        if "ablation" in row and row["ablation"].method in PROMPT_FREE
    }
    if not asked or bench.protocol == PUBLISHED:
        return {}
    (condition,) = {row["corpus"] for row in asked.values()}
    corpus, _ = bench.corpus(condition)
    rows = {(each.clean, each.target, each.foil): row for row, each in enumerate(corpus.examples)}
    cases = {
        place: (rows[row["prompt"], row["target"], row["foil"]], row["ablation"])
        for place, row in asked.items()
    }
    wanted = NextTokens(tuple(cases.values()))
    config = bench.config(condition, wanted.name(bench), wanted.sample)
    if bench.elsewhere is None and bench.store.status(config) != "complete":
        bench.model  # noqa: B018 - loads it, or says why not before anything is written
    document = bench.reading(condition, wanted).document()
    return {
        place: {key: case[key] for key in ("clean", "ablated", "attended")}
        for place, case in zip(cases, document["cases"], strict=True)
    }
