"""What a config of the study comes to here: the claims its battery belongs to, and commands."""

import shlex
from collections.abc import Iterator, Sequence

from tinyablation.heads import Head
from tinyablation.records.conditions import CONDITIONS
from tinyablation.study.batteries import (
    ActivationPatch,
    Battery,
    HeadsPairZero,
    HeadsSubsetZero,
    HeadsZero,
)
from tinyablation.study.config import Config, Request
from tinyablation.study.measuring import model_of

PROGRAM = ("python", "-m", "tinyablation")
# Battery -> family of claims, and what these ask.
FAMILIES = {
    "heads_zero": ("H1", "which single heads suppress the answer, against every other head"),
    "heads_pair_zero": ("H5", "pairs and triples: do heads add up, amplify or cooperate"),
    "heads_subset_zero": ("H5", "a named set of heads, its parts, and what one of them recovers"),
    "activation_patch": ("H6", "patches in both directions, by layer, window and position"),
}
_TRAINING = ("D", "whether the effect emerges over training checkpoints")
# Beginnings of tags and dataset ids -> the condition of this project.
_BEGINNINGS = {"fact": 0, "neg": 1, "c": 2, "log": 3}


def equivalents(config: Config) -> list[str]:
    """Lines for a shell: comments, and commands that do here what the config asks for."""
    lines = [f"# {config.path.name}: {config.run_name}"]
    shared: dict[str, list[Request]] = {}
    for request in config.requests:
        # Conditions differ in their data alone, unless one overrides more than that.
        key = "\n".join(_measured(request, "CONDITION"))
        shared.setdefault(key, []).append(request)
    for requests in shared.values():
        lines += _lines(requests)
    lines += [
        "# the config as it is, on its own data:",
        shlex.join([*PROGRAM, "run", str(config.path)]),
    ]
    return lines


def _lines(requests: Sequence[Request]) -> Iterator[str]:
    first = requests[0]
    family, asks = FAMILIES[first.battery.type]
    found = [condition_of(request) for request in requests]
    conditions = list(dict.fromkeys(name for name in found if name is not None))
    model, revision = model_of(first.settings.model)
    yield f"# {first.battery.type}: claims {family}: {asks}"
    claims = ["pytest", "claims", "--model", model, "--claim", family]
    if conditions and set(conditions) != {*CONDITIONS}:
        claims += ["-k", " or ".join(conditions)]
    yield shlex.join([*claims, *_revision(revision)])
    if revision is not None and revision.startswith("step"):
        yield f"# {revision} is a checkpoint: claims {_TRAINING[0]}: {_TRAINING[1]}"
        yield shlex.join(["pytest", "claims", "--model", model, "--claim", _TRAINING[0]])
    if conditions:
        yield "# the battery on this project's own prompts of each condition:"
    for request, condition in zip(requests, found, strict=True):
        if condition is None:
            yield f"# {request.condition}: no condition of this project; only `run` measures it"
        else:
            yield from _measured(request, condition)
    if len(conditions) > 1:
        yield "# their matrices, from the directories that were printed:"
        yield shlex.join([*PROGRAM, "rebuild-cross-condition", *["RUN"] * len(conditions)])


def condition_of(request: Request) -> str | None:
    """The project's condition that a tag or a dataset's id stands for; None if there is none."""
    for name in (request.tag, request.settings.dataset.id):
        for beginning, place in _BEGINNINGS.items():
            is_whole = beginning != "c" or name == "cf" or name.startswith("counterfactual")
            if name.startswith(beginning) and is_whole:
                return CONDITIONS[place]
    return None


def _measured(request: Request, condition: str) -> list[str]:
    """The commands of `measure` for a battery under one condition."""
    model, revision = model_of(request.settings.model)
    options = [*PROGRAM, "measure", "--model", model, *_revision(revision)]
    options += ["--condition", condition]
    device, dtype = request.settings.device, request.settings.model.dtype
    options += ["--device", device] if device != "auto" else []
    options += ["--dtype", dtype] if dtype is not None else []
    return [shlex.join([*options, *each]) for each in _batteries(request.battery)]


def _batteries(battery: Battery) -> list[list[str]]:
    """The options of `measure`, one list for each battery of this project."""
    if isinstance(battery, HeadsZero):
        return [["--battery", "zero"]]
    if isinstance(battery, ActivationPatch):
        reverse = battery.donor == "corrupt"
        return [["--battery", "patch-reverse" if reverse else "patch-forward"]]
    if isinstance(battery, HeadsPairZero):
        layers = [pair.layer for pair in battery.pairs or ()] or battery.layers
        named = ["LAYER"] if layers == "all" else map(str, sorted({*(layers or ())}))
        return [["--battery", "pairs", "--layer", layer] for layer in named]
    assert isinstance(battery, HeadsSubsetZero)
    groups = [[Head(group.layer, head).label for head in group.heads] for group in battery.groups]
    return [["--battery", "sets", "--heads", *heads] for heads in groups]


def _revision(revision: str | None) -> list[str]:
    return [] if revision is None else ["--revision", revision]
