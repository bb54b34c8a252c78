"""The report's entry on each model, from the registry, its card and its measurements."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from tinyablation.errors import TinyAblationError
from tinyablation.files.contents import parse_json, read_text
from tinyablation.plugin.command_line import command
from tinyablation.plugin.session_models import session_models
from tinyablation.records.records import SessionModel

if TYPE_CHECKING:
    from tinyablation.models.registry import ModelEntry


def model_cards(
    config: pytest.Config, measured: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """The page's entries on the models, from the registry and the models' cards.

    All embedded models are listed; others, and all models with --model, only if they have records.
    measured: by model with records, what its tests were measured with (judge.measured_with). A card
    is <source>/card.json. If one cannot be read, the model's note says so, because that must not
    prevent the report.
    """
    known = session_models(config)
    return [
        _card(entry, measured.get(name, {}))
        for name, entry in known.registry.items()
        if name in measured or (known.is_embedded(name) and not command(config).model)
    ]


def _card(entry: "ModelEntry", measured: Mapping[str, str]) -> dict[str, Any]:
    card: dict[str, Any] = {
        "id": entry.id,
        "title": entry.title,
        "family": entry.family,
        "variant": entry.variant,
        "repo": entry.repo,
        "note": _sentences(entry.note, _origin(entry, measured), _made(measured)),
        "weight_hash": measured.get("weights"),
    }
    path = None if entry.source is None else entry.source / "card.json"
    if path is not None and path.exists():
        try:
            found = parse_json(read_text(path))
            known = {name: found[name] for name in SessionModel.model_fields if name in found}
            known["note"] = " ".join(filter(None, (entry.note, known.get("note", ""))))
            # The registry determines a model's name; the card its competence.
            known |= {name: card[name] for name in ("id", "title", "family", "variant", "repo")}
            known["weight_hash"] = card["weight_hash"] or known.get("weight_hash")
            card = SessionModel.model_validate(known).model_dump()
        except (ValueError, TypeError, AttributeError, TinyAblationError) as error:
            reason = str(error).splitlines()[0]
            card["note"] = f"{entry.note} (its card.json cannot be used: {reason})".strip()
    return card


def _origin(entry: "ModelEntry", measured: Mapping[str, str]) -> str:
    """The origin and size of a model from the hub or a package, without folders."""
    if not entry.is_named_only:
        return ""
    place = entry.place
    if "commit" in measured:
        place = f"{entry.repo}@{measured['commit']}"
    size = "" if entry.parameters is None else f", {entry.parameters / 1e9:.3g} billion parameters"
    return f"{place}{size}"


def _made(measured: Mapping[str, str]) -> str:
    """The origin of its weights as a sentence: "Dequantised from ..."."""
    derived = measured.get("derived", "")
    return derived[:1].upper() + derived[1:]


def _sentences(*parts: str) -> str:
    return ". ".join(part.rstrip(".") for part in parts if part)
