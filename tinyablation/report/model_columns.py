"""The models of the page: columns of the matrix by kind and family, and what each can do clean."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyablation.records.records import CONDITIONS, RecordFile, SessionModel
from tinyablation.report.text import readable, slug


class Kind(NamedTuple):
    """A kind of model: what one is called, what several are, and what that means."""

    name: str
    plural: str
    short: str  # heads a column
    meaning: str


# By the variant of the registry, in the page's order; any other variant is of the last kind.
OTHER = "other"
KINDS = {
    "natural": Kind(
        "pretrained",
        "pretrained",
        "pretrained",
        "Trained by others; nothing was planted by this project.",
    ),
    "hedged": Kind(
        "positive control",
        "positive controls",
        "pos. control",
        "A suppressing head was planted in this model on purpose, by training one layer-0 head "
        "on hedged text. What holds here shows that the suite can find such a head, and says "
        "nothing about models trained by others.",
    ),
    "plain": Kind(
        "negative control",
        "negative controls",
        "neg. control",
        "The same procedure on unchanged text, so that nothing was planted: no suppressor should "
        "be found here.",
    ),
    OTHER: Kind("other", "others", "other", ""),
}
FAMILIES = {"gpt2": "GPT-2", "mistral": "Mistral", "llama": "Llama", "neox": "GPT-NeoX"}


class ModelColumn(NamedTuple):
    """A model of the matrix, and where it is described."""

    model: SessionModel
    anchor: str
    kind: str  # a key of KINDS
    below: list[str]

    @property
    def title(self) -> str:
        """What the page calls it."""
        return readable(self.model.title or self.model.id)

    @property
    def badge(self) -> str:
        """Its kind in words; a variant that is not known stands for itself."""
        return self.model.variant if self.kind == OTHER else KINDS[self.kind].name


def columns_of(file: RecordFile) -> dict[str, list[ModelColumn]]:
    """Models by group: pretrained ones first, then the controls of each family beside each other.

    Families are in the order of their first model; models that no session described come last.
    """
    models = {model.id: model for model in file.session.models}
    for name in sorted({record.model for record in file.records} - set(models)):
        note = "Judged, but not described in the session."
        models[name] = SessionModel(id=name, title=name, family="", variant="", note=note)
    groups: dict[str, list[ModelColumn]] = {}
    for model in models.values():
        kind = model.variant if model.variant in KINDS else OTHER
        column = ModelColumn(model, "model-" + slug(model.id), kind, model.below_floor)
        family = FAMILIES.get(model.family, model.family or "other")
        groups.setdefault("Pretrained" if kind == "natural" else family, []).append(column)
    order = sorted(groups, key=lambda name: name != "Pretrained")
    kinds = list(KINDS)
    return {
        name: sorted(groups[name], key=lambda column: kinds.index(column.kind)) for name in order
    }


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
