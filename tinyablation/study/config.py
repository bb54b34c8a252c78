"""Run configs of the study: JSON in one of two shapes, read strictly.

- single: run_name, battery, seeds, model, dataset, metrics, ... at the top;
- cross-condition: run_name, battery, `shared` (the other keys of the single shape) and
  `conditions`, each with a tag and what it overrides.

Unknown keys are refused, with the nearest known one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tinyablation.engine.tables import METRICS
from tinyablation.records.conditions import ALL_CONDITIONS
from tinyablation.spelling import did_you_mean
from tinyablation.study.batteries import Battery, parse_battery
from tinyablation.study.objects import (
    Data,
    Strict,
    StudyError,
    explained,
    merged,
    read_object,
    refuse_unknown,
)

# Of a whole answer, token by token; asked for by metric_span "full_target".
SPAN_METRICS = ("seq_logprob_diff", "seq_p_drop", "seq_kl_mean")
# Keys of a cross-condition config, and of one of its conditions, that the single shape lacks.
_PARENT = ("run_name", "battery", "shared", "conditions", "verify_slice")
_CONDITION = ("tag", "battery", "battery_overrides")
# Names become parts of directory names; RunConfig allows 80 characters of a condition.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class ModelChoice(Strict):
    """family is not needed: it is read from the model's own files."""

    name: Annotated[str, Field(min_length=1)]
    family: str | None = None
    revision: str | None = None
    dtype: Literal["float16", "float32", "bfloat16"] | None = None


class DatasetChoice(Strict):
    """The files of an id, the split that is measured, and the fields of a row."""

    id: Annotated[str, Field(pattern=rf"^{_NAME.pattern}$")]
    split: Literal["train", "val", "test"]
    clean_field: str = "clean"
    corrupt_field: str = "corrupt"
    target_field: str = "target"
    foil_field: str = "foil"


class VerifySlice(Strict):
    n_examples: Annotated[int, Field(gt=0)]
    device: str = "cpu"


class Profiling(Strict):
    interval_s: float = 5.0
    powermetrics: bool = False


class Settings(Strict):
    """What one run is asked for, apart from its name and battery."""

    model: ModelChoice
    dataset: DatasetChoice
    seed: Annotated[int, Field(ge=0)] | None = None  # the same as one of `seeds`
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    device: Literal["auto", "mps", "cpu", "cuda"] = "auto"
    metrics: Annotated[list[str], Field(min_length=1)] = Field(
        default_factory=lambda: ["logit_diff"]
    )
    metric_span: Literal["first_token", "full_target"] = "first_token"
    batch_size: Annotated[int, Field(gt=0)] | None = None
    max_seq_len: Annotated[int, Field(gt=0)] | None = None
    verify_slice: VerifySlice | None = None
    profiling: Profiling | None = None

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in METRICS:
                raise ValueError(f"there is no metric {name!r}; {did_you_mean(name, METRICS)}")
        return names

    @model_validator(mode="after")
    def _once(self) -> "Settings":
        if self.seed is not None and self.seeds is not None:
            raise ValueError("seed and seeds are both given; leave one out")
        return self

    @property
    def every_seed(self) -> list[int]:
        """The seeds, each once, in the order given; [0] if there are none."""
        return list(dict.fromkeys(self.seeds or [self.seed or 0]))

    @property
    def wanted_metrics(self) -> list[str]:
        """The metrics asked for, and those of whole answers if these are measured."""
        spans = SPAN_METRICS if self.metric_span == "full_target" else ()
        return list(dict.fromkeys([*self.metrics, *spans]))


@dataclass(frozen=True)
class Request:
    """One run of a config: a single config, or one condition of a cross-condition config.

    tag: the condition's, "" for a single config; battery_path: relative to the root.
    """

    run_name: str
    tag: str
    settings: Settings
    battery: Battery
    battery_path: str

    @property
    def condition(self) -> str:
        """Its condition in tables and directory names: the tag, or the dataset's id."""
        return self.tag or self.settings.dataset.id


@dataclass(frozen=True)
class Config:
    """A config file: its runs, in its order, and what it holds. root: see read_config."""

    path: Path
    root: Path
    run_name: str
    requests: tuple[Request, ...]
    content: Mapping[str, Any]

    @property
    def is_crossed(self) -> bool:
        """Whether it has the cross-condition shape, whose parent run has a folder of its own."""
        return "conditions" in self.content


def read_config(path: Path, root: Path | None = None) -> Config:
    """Read a config and its batteries.

    root: the folder that its paths are relative to; None: the nearest one, from the config's own
    folder upwards and then the working directory, in which they exist. Raises StudyError, with one
    line for each thing that is wrong: file, key, what to do.
    """
    data = read_object(path)
    crossed = "conditions" in data or "shared" in data
    run_name = _run_name(path, data)
    if crossed:
        refuse_unknown(path, "", data, _PARENT)
        parts = _conditions(path, data)
    else:
        parts = [("", data)]
    root = _root(path, parts[0][1].get("battery")) if root is None else root
    requests, faults = [], Faults()
    for tag, given in parts:
        own = {key: value for key, value in given.items() if key not in ("run_name", *_CONDITION)}
        try:
            settings = Settings.model_validate(own)
        except ValidationError as error:
            faults.add(tag, explained(error, Settings))
            continue
        battery, overrides = given.get("battery"), given.get("battery_overrides", {})
        if not isinstance(battery, str) or not isinstance(overrides, dict):
            faults.add(tag, ["battery: give the path of a battery file"])
            continue
        content = merged(read_object(root / battery), overrides)
        parsed = parse_battery(root / battery, content)
        requests.append(Request(run_name, tag, settings, parsed, battery))
    faults.require_none(path, len(parts))
    return Config(path, root, run_name, tuple(requests), data)


class Faults:
    """What is wrong with the conditions of a config; what all of them share is said once."""

    def __init__(self) -> None:
        self._tags: dict[str, list[str]] = {}

    def add(self, tag: str, lines: Sequence[str]) -> None:
        for line in lines:
            self._tags.setdefault(line, []).append(tag)

    def require_none(self, path: Path, n_conditions: int) -> None:
        """Raise StudyError, with a line for each fault, if there is any."""
        lines = []
        for line, tags in self._tags.items():
            where = "" if len(tags) == n_conditions else f"condition {', '.join(tags)}: "
            lines.append(f"{path}: {where}{line}")
        if lines:
            raise StudyError("\n".join(lines))


def _run_name(path: Path, data: Data) -> str:
    name = data.get("run_name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StudyError(
            f"{path}: run_name: {name!r} cannot name a folder; use letters, digits, '.', '_', '-'"
        )
    return name


def _conditions(path: Path, data: Data) -> list[tuple[str, Data]]:
    """Tag -> the shared keys with what the condition overrides, in the config's order."""
    shared, conditions = data.get("shared"), data.get("conditions")
    if not isinstance(shared, dict):
        raise StudyError(f"{path}: shared: must be an object of the keys that conditions share")
    if not isinstance(conditions, list) or not conditions:
        raise StudyError(f"{path}: conditions: must be a list of at least one condition")
    refuse_unknown(path, "shared.", shared, tuple(Settings.model_fields))
    base = {k: v for k, v in data.items() if k in ("battery", "verify_slice")} | shared
    found: dict[str, Data] = {}
    for number, each in enumerate(conditions):
        where = f"conditions[{number}]"
        tag = each.get("tag") if isinstance(each, dict) else None
        if not isinstance(tag, str) or not _NAME.fullmatch(tag) or tag == ALL_CONDITIONS:
            raise StudyError(f"{path}: {where}.tag: {tag!r} is no name of a condition")
        if tag in found:
            raise StudyError(f"{path}: {where}.tag: {tag!r} is given twice")
        refuse_unknown(path, f"{where}.", each, (*_CONDITION, *Settings.model_fields))
        found[tag] = merged(base, each)
    return list(found.items())


def _root(path: Path, battery: Any) -> Path:
    places = [*path.resolve().parents, Path.cwd()]
    if not isinstance(battery, str):
        return places[-1]
    return next((place for place in places if (place / battery).is_file()), Path.cwd())
