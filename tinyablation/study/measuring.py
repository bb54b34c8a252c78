"""Measures the runs of a config, and says what is not done as it asks, with the reason.

The instruments are those of this project: prompts without padding, each read at its own last token;
patches between prompts of equal length only; every change against the unhooked model on the same
prompt; every run verified by a second measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyablation.errors import TinyAblationError
from tinyablation.study.batteries import ActivationPatch, Asked
from tinyablation.study.config import SPAN_METRICS, Config, ModelChoice, Request
from tinyablation.study.data import read_condition
from tinyablation.study.directories import Written, write_parent, write_partial, write_run
from tinyablation.study.objects import StudyError

if TYPE_CHECKING:
    from pathlib import Path

    from tinyablation.corpora.defects import Defect
    from tinyablation.corpora.own_conditions import OwnCondition
    from tinyablation.measurement.bench import Bench
    from tinyablation.runs.store import RunStore

# Names of TransformerLens for models that are called otherwise on the hub and in models.toml.
ALIASES = {"gpt2-small": "gpt2"}
_UNALIGNED = "pairs of unequal length"


def model_of(choice: ModelChoice) -> tuple[str, str | None]:
    """The name and revision, here, of the model that a config names."""
    return ALIASES.get(choice.name, choice.name), choice.revision


@dataclass(frozen=True)
class Instead:
    """What is given instead of the config's own model, device and dtype; None: nothing."""

    model: str | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Wanted:
    """The bench that a request needs. changed: lines on what differs from the config, and why."""

    model: str
    revision: str | None
    device: str
    dtype: str | None
    seed: int
    changed: tuple[str, ...]


BenchOf = Callable[[Wanted, "dict[str, OwnCondition]"], "Bench"]


def wanted(request: Request, instead: Instead) -> Wanted:
    """What a request is measured with."""
    settings, changed = request.settings, []
    own = settings.model
    name, revision = model_of(own)
    dtype = instead.dtype or own.dtype
    if instead.model is not None:
        changed.append(f"model: {own.name} is replaced by {instead.model} (--model)")
        if own.dtype is not None and instead.dtype is None:
            changed.append(f"dtype: {own.dtype} goes with {own.name}; measured in the model's own")
        name, revision, dtype = instead.model, None, instead.dtype
    here, missing = _device(settings.device, instead.device)
    if missing:
        changed.append(f"device: {settings.device} is not on this machine; measured on {here}")
    seeds = settings.every_seed
    if len(seeds) > 1:
        changed.append(
            f"seeds: {', '.join(map(str, seeds))}: no seed draws anything in "
            f"{request.battery.type}; measured once, under seed {seeds[0]}, for the others would "
            "repeat it"
        )
    changed += _not_used(request)
    return Wanted(name, instead.revision or revision, here, dtype, seeds[0], tuple(changed))


def _device(asked: str, instead: str | None) -> tuple[str, bool]:
    """The device to measure on, and whether the config's is not there.

    A device that is given instead of the config's must be there: DeviceError otherwise.
    """
    from tinyablation.models.devices import DeviceError, choose_device

    if instead is not None:
        return choose_device(instead), False
    try:
        return choose_device(asked), False
    except DeviceError:
        return choose_device("auto"), True


def _not_used(request: Request) -> list[str]:
    settings, lines = request.settings, []
    if settings.batch_size is not None:
        lines.append(f"batch_size: {settings.batch_size} is not used; no figure depends on batches")
    if settings.verify_slice is not None:
        asked = settings.verify_slice
        lines.append(
            f"verify_slice: not {asked.n_examples} examples on {asked.device}: every run is "
            "verified, a sample of prompts alone and in other batches (verify.json), on the CPU in "
            "float32 wherever it is measured"
        )
    if settings.profiling is not None:
        power = ", and no power" if settings.profiling.powermetrics else ""
        lines.append(
            "profiling: profile.json has seconds by part and the peak of memory, no samples by "
            f"interval{power}"
        )
    if settings.metric_span == "first_token" and {*settings.metrics} & {*SPAN_METRICS}:
        lines.append("metric_span: first_token; metrics of spans are those of the one token")
    return lines


def measure(
    config: Config,
    store: RunStore,
    bench_of: BenchOf,
    instead: Instead,
    say: Callable[[str], object],
    done: Callable[[Path], object],
) -> list[Written]:
    """Measure every run of a config.

    bench_of: the bench of what is wanted, over `store`, with the conditions from files. say: called
    with a line for each thing that is not done as asked. done: with the directory of each run that
    is complete, and at last with that of the parent of several conditions.

    Raises StudyError if anything could not be measured, after everything else was; the message has
    a line for each condition.
    """
    written: list[Written] = []
    missing: dict[str, str] = {}
    conditions = [read_condition(request, config.root) for request in config.requests]
    for request, condition in zip(config.requests, conditions, strict=True):
        try:
            written.append(_measure(request, condition, instead, bench_of, say))
            done(written[-1].path)
        except TinyAblationError as error:
            if not config.is_crossed:
                raise
            missing[request.tag] = str(error)
    if config.is_crossed and written:
        done(write_parent(store, config, written, {"missing": missing} if missing else {}))
    if missing:
        lines = [f"{config.path}: condition {tag}: {why}" for tag, why in missing.items()]
        raise StudyError("\n".join(lines))
    return written


def _measure(
    request: Request,
    condition: OwnCondition,
    instead: Instead,
    bench_of: BenchOf,
    say: Callable[[str], object],
) -> Written:
    need = wanted(request, instead)
    for line in need.changed:
        say(line)

    def tell(line: str) -> None:
        say(f"{request.tag}: {line}" if request.tag else line)

    bench = bench_of(need, {condition.name: condition})
    asked, left_out = _asked(request, bench, other_model=instead.model is not None)
    bench.corpus(condition.name)  # errors of the data come before those of the battery
    found = bench.library.defects(bench.facts.folder, condition.name, bench.entry.id)
    is_patch = isinstance(request.battery, ActivationPatch)
    for line in left_out:
        tell(line)
    of_data = summed(found, () if is_patch else (_UNALIGNED,))
    for line in of_data:
        tell(line)
    address = bench.config(condition.name, asked.battery.name, asked.battery.sample)
    try:
        run = bench.run(condition.name, asked.battery)
        validity = bench.gate.judged(condition.name)
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"[:500]
        folder = write_partial(bench.store, request, address, reason)
        tell(f"not finished: see {folder / 'partial_summary.json'}")
        raise
    finally:
        bench.release()
    facts: dict[str, Any] = {
        "changed": [*need.changed, *left_out, *of_data],
        "validity": {"status": validity.status, "reason": validity.reason},
    }
    if validity.status != "supported":
        tell(f"validity: {validity.status}: {validity.reason}")
    return write_run(bench.store, request, asked, run, facts)


def _asked(request: Request, bench: Bench, *, other_model: bool) -> tuple[Asked, list[str]]:
    """The battery for the bench's model, and what is left out of it.

    Another model than the config's may lack some of its layers and heads; the config's own may not.
    """
    shape = bench.facts.n_layers, bench.facts.n_heads
    asked = request.battery.asked(*shape)
    if not other_model:
        return asked, []
    every, kept = asked.battery.interventions, asked.battery.fitting(*shape)
    out = [each.label for each in every if each not in kept.interventions]
    if not out:
        return asked, []
    said = f"{bench.entry.id} has {shape[0]} layers of {shape[1]} heads"
    if not kept.interventions:
        raise StudyError(f"{request.battery_path}: nothing of it is left: {said}")
    sham = tuple(label for label in asked.sham if label not in out)
    line = (
        f"battery: {len(out)} of {len(every)} interventions are left out (first: {out[0]}); {said}"
    )
    return Asked(kept, asked.labels, sham), [line]


def summed(defects: Iterable[Defect], unless: Collection[str] = ()) -> list[str]:
    """One line for each kind of defect: how many, and the first; line 0 is the file as a whole."""
    kinds: dict[str, list[Defect]] = {}
    for each in defects:
        if each.kind not in unless:
            kinds.setdefault(each.kind, []).append(each)
    return [
        f"data: {kind}: {len(found)} (first: line {found[0].line}, {found[0].what})"
        if found[0].line
        else f"data: {kind} ({found[0].what})"
        for kind, found in kinds.items()
    ]
