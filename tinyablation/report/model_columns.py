"""The models of the page: columns of the matrix by family, and what each can do unharmed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyablation.records.records import CONDITIONS, RecordFile, SessionModel
from tinyablation.report.text import slug

VARIANTS = {
    "hedged": (
        "planted",
        (
            "A suppressing head was planted in this model on purpose, by training one layer-0 head "
            "on hedged text. It is the positive control: what holds here shows that the suite can "
            "find such a head, and says nothing about models trained by others."
        ),
    ),
    "plain": (
        "sham",
        (
            "The same procedure on unchanged text, so that nothing was planted. It is the negative "
            "control: no head should pass here."
        ),
    ),
    "natural": ("natural", "Trained by others; nothing was planted by this project."),
}
FAMILIES = {"gpt2": "GPT-2", "mistral": "Mistral", "llama": "Llama", "neox": "GPT-NeoX"}


class ModelColumn(NamedTuple):
    """A model of the matrix, and where it is described."""

    model: SessionModel
    anchor: str
    badge: str
    meaning: str
    below: list[str]

    @property
    def title(self) -> str:
        """What the page calls it."""
        return self.model.title or self.model.id


def columns_of(file: RecordFile) -> dict[str, list[ModelColumn]]:
    """Models by family, families in the order of their first model; unlisted models come last."""
    models = {model.id: model for model in file.session.models}
    for name in sorted({record.model for record in file.records} - set(models)):
        note = "Judged, but not described in the session."
        models[name] = SessionModel(id=name, title=name, family="", variant="", note=note)
    families: dict[str, list[ModelColumn]] = {}
    for model in models.values():
        badge, meaning = VARIANTS.get(model.variant, (model.variant, ""))
        column = ModelColumn(model, "model-" + slug(model.id), badge, meaning, model.below_floor)
        families.setdefault(FAMILIES.get(model.family, model.family or "other"), []).append(column)
    return families


class CompetenceRow(NamedTuple):
    """One truth cell of one condition: the figure of each model, None where it was not measured."""

    condition: str
    cell: str
    figures: list[Any]


def competence(models: Sequence[SessionModel]) -> list[CompetenceRow]:
    """The rows of the table of competence, known conditions first."""
    keys = dict.fromkeys(
        (condition, cell)
        for model in models
        for condition, cells in model.competence.items()
        for cell in cells
    )
    known = [key for name in CONDITIONS for key in keys if key[0] == name]
    rows = []
    for condition, cell in known + [key for key in keys if key[0] not in CONDITIONS]:
        names = {f"{condition}{sign}{cell}" for sign in "/:. -"} | {f"{condition}, {cell}"}
        figures = []
        for model in models:
            figure = model.competence.get(condition, {}).get(cell)
            below = bool(names & set(model.below_floor)) or condition in model.below_floor
            figures.append(figure and (figure, below))
        rows.append(CompetenceRow(condition, cell, figures))
    return rows
