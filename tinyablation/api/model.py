"""A model to measure: where it comes from, and what can be asked of it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tinyablation.api import in_memory
from tinyablation.api.checks import Check
from tinyablation.api.errors import ApiError
from tinyablation.api.heads import head_of, set_of
from tinyablation.api.patches import Patches, Paths
from tinyablation.api.prompts import condition_or_prompts
from tinyablation.api.study import Study
from tinyablation.api.sweeps import HeadSets, Sweep
from tinyablation.api.written import Written
from tinyablation.heads import Head
from tinyablation.interventions.batteries import single_heads
from tinyablation.interventions.listed import chosen_sets
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.devices import choose_device
from tinyablation.models.registry import Dtype, ModelEntry, Registry, load_registry
from tinyablation.runs.store import RunStore
from tinyablation.shipped import CORPORA, MODELS, here_or_shipped
from tinyablation.spelling import SLIP, did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable


def load(
    model: Any,
    *,
    tokenizer: Any = None,
    name: str | None = None,
    revision: str | None = None,
    bos: bool | None = None,
    device: str = "auto",
    dtype: str | None = None,
    seed: int = 0,
    store: str | Path | None = None,
    registry: str | Path | None = None,
    corpora: str | Path | None = None,
    progress: bool = False,
) -> Model:
    """The model to measure. Its weights are loaded when something is first measured.

    model: a Hugging Face folder, a GGUF file, a repository of the hub ("OWNER/NAME"), an id of the
    registry, or a PreTrainedModel in memory, with its tokenizer. One in memory is copied into a
    temporary folder: what is measured is its weights as they are now, and the object is left alone.

    name: in tables and addresses (default: from its path). revision: of a repository. bos: whether
    prompts begin with the tokenizer's BOS (default: the registry's, else as TransformerLens does
    for the architecture). device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:N" or
    "mps"; dtype: "float32" (the default of most), "bfloat16" or "float16". seed: of all that is
    drawn. store: the folder where measurements are kept, such as "reports/runs", which `pytest
    claims` shares; None: a temporary one, removed once neither the model nor anything measured of
    it is held. registry, corpora: models.toml, and the folder of the project's conditions (default:
    those here, else those that came with the library). progress: show bars.

    Raises RegistryError for a name that is no model's, WeightsMissing where there are no weights,
    LoadingError for a model that cannot be used, DeviceError for a device that there is not.
    """
    if seed < 0:
        raise ApiError(f"seed {seed}: give 0 or more")
    if dtype is not None and dtype not in get_args(Dtype):
        raise ApiError(f"dtype {dtype!r}: {did_you_mean(dtype, get_args(Dtype))}")
    temporary = tempfile.mkdtemp(prefix="tinyablation-")
    try:
        held = model if in_memory.is_model(model) else None
        if held is not None:
            folder = Path(temporary, "model")
            in_memory.save(held, tokenizer, folder)
            model, name = folder, name or in_memory.name_of(held)
        elif tokenizer is not None:
            raise ApiError("tokenizer= is for models in memory; others have their own")
        elif not isinstance(model, str | Path):
            raise ApiError(f"{type(model).__name__} is no model; give a path, an id or a model")
        entry = _entry(str(model), name, revision, registry)
        setup = Setup(
            entry=entry if bos is None else entry.model_copy(update={"bos": bos}),
            corpora=_place(CORPORA, corpora),
            seed=seed,
            device=choose_device(device),
            dtype=dtype,
        )
        runs = Path(temporary, "runs") if store is None else Path(store).expanduser()
        made = Model(Bench(setup, RunStore(runs), progress=progress))
        made.bench.facts  # noqa: B018 - raises now if there is no model
        if held is not None:
            in_memory.require_same(held, tokenizer, made.bench.model)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    # Of the bench, which what was measured holds longer than the model: `load(...).sweep(...)`.
    weakref.finalize(made.bench, shutil.rmtree, temporary, ignore_errors=True)
    return made


class Model:
    """A model to measure. Make one with `load`.

    prompts, in all methods: what Prompts.of takes, or the name of a condition of the project
    ("facts", "negation", "counterfactual", "logic"). A measurement is made once: asking again, here
    or with the same `store`, reads it.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._studies: dict[tuple[str, str], Study] = {}

    @property
    def name(self) -> str:
        """Its id, as in tables and addresses."""
        return self.bench.entry.id

    @property
    def n_layers(self) -> int:
        """The number of its layers."""
        return self.bench.facts.n_layers

    @property
    def n_heads(self) -> int:
        """The number of attention heads of each layer."""
        return self.bench.facts.n_heads

    def check(self, prompts: Any) -> Check:
        """Whether the model answers the prompts, with nothing ablated: see Check."""
        return Check(self._study(prompts))

    def sweep(self, prompts: Any, *, layers: Iterable[int] | None = None) -> Sweep:
        """Every head zeroed alone, at all positions of every prompt: see Sweep.

        layers: only the heads of these; None: all, as the claims' sweep, which is the same
        measurement.
        """
        study = self._study(prompts)
        if layers is None:
            return Sweep(study, study.findings.sweep(study.condition))
        from tinyablation.analysis.sweeps import Sweep as Effects
        from tinyablation.interventions.batteries import ONE_WORDING

        chosen = sorted({int(layer) for layer in layers})
        for layer in chosen:
            if not 0 <= layer < self.n_layers:
                raise ApiError(f"layer {layer}: the model has layers 0 to {self.n_layers - 1}")
        if not chosen:
            raise ApiError("layers is empty; name at least one, or leave it out")
        every = single_heads(self.n_layers, self.n_heads)
        heads = [(head,) for head in every if head.layer in chosen]
        battery = chosen_sets(heads, study.bench.method, sample=ONE_WORDING)
        run = study.bench.run(study.condition, battery)
        measured = study.findings.measured(study.condition, run)
        return Sweep(study, Effects(*measured, method=study.bench.method))

    def ablate(self, prompts: Any, *sets: Any) -> HeadSets:
        """Sets of heads zeroed together, and each of their heads alone: see HeadSets.

        sets: each "L0H7 L0H5", a list of heads, or one head; of one layer or several.
        """
        if not sets:
            raise ApiError('name at least one set of heads, such as "L0H7 L0H5"')
        from tinyablation.analysis.coalitions import Coalitions

        named = tuple(dict.fromkeys(set_of(each, self.n_layers, self.n_heads) for each in sets))
        study = self._study(prompts)
        run = study.bench.run(study.condition, chosen_sets(named, study.bench.method))
        measured = study.findings.measured(study.condition, run)
        return HeadSets(study, Coalitions(*measured, method=study.bench.method), named)

    def patch(self, prompts: Any) -> Patches:
        """The residual stream patched both ways between each prompt and its counterpart.

        Needs corrupt prompts, some of as many tokens as their clean ones: see Patches. Raises
        CorpusError without any, MirroredPairs if every corrupt prompt is the clean one of another.
        """
        study = self._study(prompts)
        if study.prompts is not None and not study.prompts.has_corrupt:
            raise ApiError(
                f"{study.prompts.own.path}: no corrupt prompts, which patching takes activations "
                "from; give (prompt, target, foil, corrupt)"
            )
        return Patches(study, study.findings.patches(study.condition))

    def path(self, prompts: Any, head: Any) -> Paths:
        """One head's direct path into the stream of every later layer, cut alone: see Paths."""
        wanted = head_of(head, self.n_layers, self.n_heads)
        study = self._study(prompts)
        return Paths(study, study.findings.paths(study.condition, wanted))

    def ov(self, prompts: Any, head: Any, *, top: int = 20) -> Written:
        """What one head writes at the last token of the prompts: `top` tokens at either end.

        Measured each time, and not kept.
        """
        from tinyablation.engine.head_outputs import measure_ov

        wanted = head_of(head, self.n_layers, self.n_heads)
        study = self._study(prompts)
        bench = study.bench
        measured = measure_ov(
            bench.engine,
            bench.prompts(study.condition),
            condition=study.condition,
            split="all",
            lexicons={},
            top_k=top,
            layers_with_vectors=(),
            seed=bench.seed,
        )
        place = single_heads(self.n_layers, self.n_heads).index(wanted)
        return Written(study, wanted, measured.document["heads"][place])

    def release(self) -> None:
        """Free the memory of the weights; they are loaded again when they are needed."""
        self.bench.release()

    def _study(self, prompts: Any) -> Study:
        given = condition_or_prompts(prompts)
        key = (given, "") if isinstance(given, str) else (given.name, given.own.content_hash)
        if key not in self._studies:
            self._studies[key] = Study(self.bench, given)
        return self._studies[key]

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every head of the model, layer by layer."""
        return single_heads(self.n_layers, self.n_heads)

    def __repr__(self) -> str:
        return f"Model({self.name!r}: {self.n_layers} layers of {self.n_heads} heads)"


def _entry(
    model: str, name: str | None, revision: str | None, registry: str | Path | None
) -> ModelEntry:
    path = _place(MODELS, registry)
    # A folder, a file or a repository needs no registry.
    known = load_registry(path) if registry is not None or path.is_file() else Registry(path, {})
    entry = known.named(model, revision, name)
    # Few repositories have no owner: a slip of the pen is not asked of the hub.
    if entry.repo == model and "/" not in model and entry.id not in known:
        close = nearest(model, known.ids, SLIP)
        if close is not None:
            raise ApiError(
                f"{model}: no model has this id; did you mean {close!r}? (A repository of the hub "
                "is named OWNER/NAME)"
            )
    return entry


def _place(usual: str, given: str | Path | None) -> Path:
    """What was given, else what is here, else what came with the library."""
    return here_or_shipped(Path(), usual) if given is None else Path(given).expanduser()
