"""Predictions and published figures for the cells of a session, from claims/."""

from collections.abc import Sequence
from typing import Any

import pytest

from tinyablation.plugin.conditions import own_conditions
from tinyablation.plugin.options import about_claims, asked_cells, collects_every_claim, protocol
from tinyablation.plugin.packs import pack_of
from tinyablation.plugin.selection import cell_of, claim_id
from tinyablation.plugin.session_models import session_models
from tinyablation.records.records import ALL_CONDITIONS
from tinyablation.verdicts.predictions import Prediction, Predictions, load_predictions
from tinyablation.verdicts.published import Published, load_published

_predictions_key = pytest.StashKey[Predictions]()
_published_key = pytest.StashKey[Published]()


def predictions(config: pytest.Config) -> Predictions:
    """Registered verdicts (claims/predictions.toml), read once; empty if there is no file."""
    if _predictions_key not in config.stash:
        path = about_claims(config, "predictions")
        config.stash[_predictions_key] = (
            load_predictions(path) if path.exists() else Predictions(path, {}, {})
        )
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
    return predictions(item.config).for_cell(claim_id(item), *cell_of(item))


def published(item: pytest.Item) -> list[dict[str, Any]]:
    """Published figures for this claim and condition, of any model.

    A user's condition has none, because they are about other conditions, also those for "all".
    """
    if _published_key not in item.config.stash:
        path = about_claims(item.config, "published")
        item.config.stash[_published_key] = (
            load_published(path) if path.exists() else Published(path, ())
        )
    _, condition = cell_of(item)
    if condition in own_conditions(item.config):
        return []
    return [
        figure.model_dump(exclude={"claim"})
        for figure in item.config.stash[_published_key].for_claim(claim_id(item))
        if ALL_CONDITIONS in (condition, figure.condition) or figure.condition == condition
    ]


def unmatched(config: pytest.Config, claims: Sequence[pytest.Item]) -> str | None:
    """The complaint about predictions that decide no cell, among all cells, selected or not.

    If only some modules were collected, predictions for claims outside them are not reported; if
    single cells were collected by node id, nothing is.
    """
    registered = predictions(config)
    # A pack is also about models that this project does not list.
    if any(asked_cells(config)) or pack_of(config, registered.path) is not None:
        return None
    collected = {claim_id(item) for item in claims}
    known = session_models(config).listed
    own = own_conditions(config)
    cells = {(claim_id(item), *cell_of(item)) for item in claims if cell_of(item)[1] not in own}
    unused = registered.unused(cell for cell in cells if cell[1] == "" or cell[1] in known)
    if unused:
        # Cells of some models exist only if they are named; a prediction for one is not a mistake.
        shapes = {(claim, condition) for claim, model, condition in cells if model}
        cells |= {
            (claim, name, condition) for claim, condition in shapes for name in known.named_only_ids
        }
        unused = registered.unused(cell for cell in cells if cell[1] == "" or cell[1] in known)
    complaints = [
        f'"{claim}": "{pattern}"'
        for claim, pattern in unused
        if (claim in collected or collects_every_claim(config))
        and not (claim in collected and registered.is_elsewhere(claim, pattern))
    ]
    if not complaints:
        return None
    return (
        f"{registered.path}: these predictions decide no cell: {', '.join(complaints)}. Correct "
        "the claim or the pattern, or remove the line; an earlier pattern may already cover it"
    )
