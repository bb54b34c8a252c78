"""Predictions and published figures for the cells of a session, from claims/."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from tinyablation.plugin.conditions import own_conditions
from tinyablation.plugin.options import about_claims, asked_cells, collects_every_claim, protocol
from tinyablation.plugin.packs import pack_of
from tinyablation.plugin.selection import cell_of, claim_id
from tinyablation.plugin.session_models import session_models
from tinyablation.records.records import ALL_CONDITIONS
from tinyablation.verdicts.expectations import ExpectationError
from tinyablation.verdicts.predictions import Prediction, Predictions, load_predictions
from tinyablation.verdicts.published import Published, load_published

_predictions_key = pytest.StashKey[tuple[Predictions, ...]]()
_published_key = pytest.StashKey[tuple[Published, ...]]()


def predictions(config: pytest.Config) -> tuple[Predictions, ...]:
    """Registered verdicts by file, each read once; ExpectationError for a claim in two of them."""
    if _predictions_key not in config.stash:
        files = tuple(load_predictions(path) for path in about_claims(config, "predictions"))
        for one, other in combinations(files, 2):
            for claim in sorted(one.claims.keys() & other.claims.keys()):
                raise ExpectationError(
                    f"{other.path}: claim {claim!r} is predicted in {one.path} too; keep it in "
                    "the pack whose claim it is"
                )
        config.stash[_predictions_key] = files
    return config.stash[_predictions_key]


def predicted(item: pytest.Item) -> Prediction | None:
    """The prediction for this cell, or None.

    There is none for the published protocol, for a user's condition, or for a model that the
    registry does not list: a folder that happens to be called tiny-something is not what "tiny-*"
    was written about.
    """
    if cell_of(item)[1] in own_conditions(item.config):
        return None
    if protocol(item.config) == "published" or not session_models(item.config).is_listed(
        cell_of(item)[0]
    ):
        return None
    claim = claim_id(item)
    files = [file for file in predictions(item.config) if claim in file.claims]
    return files[0].for_cell(claim, *cell_of(item)) if files else None


def published(item: pytest.Item) -> list[dict[str, Any]]:
    """Published figures for this claim and condition, of any model.

    A user's condition has none, because they are about other conditions, also those for "all".
    """
    if _published_key not in item.config.stash:
        paths = about_claims(item.config, "published")
        item.config.stash[_published_key] = tuple(load_published(path) for path in paths)
    _, condition = cell_of(item)
    if condition in own_conditions(item.config):
        return []
    return [
        figure.model_dump(exclude={"claim"})
        for file in item.config.stash[_published_key]
        for figure in file.for_claim(claim_id(item))
        if ALL_CONDITIONS in (condition, figure.condition) or figure.condition == condition
    ]


def unmatched(config: pytest.Config, claims: Sequence[pytest.Item]) -> str | None:
    """The complaint about predictions that decide no cell, among all cells, selected or not.

    If only some modules were collected, predictions for claims outside them are not reported; if
    single cells were collected by node id, nothing is.
    """
    if any(asked_cells(config)):
        return None
    collected = {claim_id(item) for item in claims}
    known = session_models(config).listed
    own = own_conditions(config)
    cells = {(claim_id(item), *cell_of(item)) for item in claims if cell_of(item)[1] not in own}
    # Cells of some models exist only if they are named; a prediction for one is not a mistake.
    shapes = {(claim, condition) for claim, model, condition in cells if model}
    cells |= {
        (claim, name, condition) for claim, condition in shapes for name in known.named_only_ids
    }
    cells = {cell for cell in cells if cell[1] == "" or cell[1] in known}
    for file in predictions(config):
        if pack_of(config, file.path) is not None:
            continue  # it is also about models that this project does not list
        complaints = [
            f'"{claim}": "{pattern}"'
            for claim, pattern in file.unused(cells)
            if (claim in collected or collects_every_claim(config))
            and not (claim in collected and file.is_elsewhere(claim, pattern))
        ]
        if complaints:
            return (
                f"{file.path}: these predictions decide no test case: {', '.join(complaints)}. "
                "Correct the claim or the pattern, or remove the line; an earlier pattern may "
                "already cover it"
            )
    return None
