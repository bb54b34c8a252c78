"""What must hold of residual streams and of the model itself; see laws.py."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.conftest import N_LAYERS
from tests.metamorphic.cases import Case, Question, ids_of
from tests.metamorphic.laws import plain_logits
from tinyablation.engine.architecture import Architecture, Kept
from tinyablation.engine.changed_pass import Rows
from tinyablation.engine.engine import Engine
from tinyablation.engine.head_outputs import head_outputs
from tinyablation.heads import Head
from tinyablation.interventions.interventions import (
    AblateHeads,
    PatchPath,
    PathMethod,
)

# Sums of fp32 streams of some units, in another order: between 3e-6 and 4e-6 was the most.
STREAM_ROUNDING = 1e-5
LAST = N_LAYERS - 1


def is_parallel(engine: Engine) -> bool:
    """Whether the MLP reads what the attention reads, and not what it wrote (GPT-NeoX)."""
    return bool(getattr(engine.loaded.model.config, "use_parallel_residual", False))


def changes_in_the_last_layer_add(
    engine: Engine, question: Question, heads: tuple[Head, ...], method: PathMethod
) -> None:
    """Heads of the last layer change the stream after the attention by the sum of their changes.

    So they do what enters the final norm, by their direct path; and by ablation as well, where the
    MLP runs beside the attention. Where it comes after, it moves, and only its input adds. LD is
    the same streams read through the norm, by which nothing adds.
    """
    single = [(head,) for head in heads]
    ablations = {own: AblateHeads(own, method) for own in (*single, heads)}
    paths = {own: PatchPath(own, N_LAYERS, method) for own in (*single, heads)}
    case = Case((question,), tuple(dict.fromkeys((*ablations.values(), *paths.values()))))
    with recorded(engine) as (streams, mlps):
        frame = case.measure(engine).set_index("intervention")
    clean, mlp = clean_end(engine, question)

    def of(records: dict[str, Tensor], label: str) -> Tensor:
        # Measured as zero where no bias is.
        return records[label if label in records else label.replace("zero_folded", "zero")]

    direct = {own: of(streams, path.label) - clean for own, path in paths.items()}
    before_mlp = {
        own: (of(streams, each.label) - of(mlps, each.label)) - (clean - mlp)
        for own, each in ablations.items()
    }
    where = f"heads {heads} by {method}, for the prompt\n  {question!r}"
    for name, change in (("direct path", direct), ("ablation", before_mlp)):
        total = torch.stack([change[own] for own in single]).sum(0)
        off = (change[heads] - total).abs().max().item()
        assert off <= STREAM_ROUNDING, f"last layer, {name}: sums are off by {off:.3g}, {where}"
    for own, each in ablations.items():
        off = (before_mlp[own] - direct[own]).abs().max().item()
        assert off <= STREAM_ROUNDING, f"{each.label} is not its direct path, by {off:.3g}, {where}"
        moved = (of(mlps, each.label) - mlp).abs().max().item()
        assert moved <= STREAM_ROUNDING if is_parallel(engine) else moved > STREAM_ROUNDING, (
            f"{each.label} moves the last MLP's output by {moved:.3g}, {where}"
        )
    prompt = question.prompt()
    for label in (each.label for each in case.interventions):
        logits = engine.architecture.logits(of(streams, label)[None])[0]
        read = (logits[prompt.target].double() - logits[prompt.foil].double()).item()
        off = abs(read - frame.loc[label, "logit_diff"])
        assert off <= STREAM_ROUNDING, f"{label}: the stream's LD is off by {off:.3g}, {where}"


@contextlib.contextmanager
def recorded(engine: Engine) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """By label, what enters the final norm and what the last MLP put out, [d_model] each.

    For one prompt, so that every segment of a batch is one row.
    """
    streams: dict[str, Tensor] = {}
    mlps: dict[str, Tensor] = {}
    seen: list[Tensor] = []
    run = Engine._run

    def recording(self: Engine, chunk: Any, start: Any, segments: Any) -> Tensor:
        seen.clear()
        hidden = run(self, chunk, start, segments)
        for segment in segments:
            label = segment.intervention.label
            (streams[label],) = hidden[segment.rows]
            if seen:
                (mlps[label],) = seen[-1][segment.rows, -1]
        return hidden

    module = engine.architecture.layers[LAST].mlp
    assert module is not None
    handle = module.register_forward_hook(lambda _, args, out: seen.append(out))
    try:
        with patch.object(Engine, "_run", recording):
            yield streams, mlps
    finally:
        handle.remove()


@torch.no_grad()
def clean_end(engine: Engine, question: Question) -> tuple[Tensor, Tensor]:
    """The last token's stream before the final norm, and the last MLP's output, [d_model] each."""
    ids = torch.tensor([question.prompt().ids])
    found = engine.architecture.clean(ids, Kept(mlp=frozenset([LAST])), logits=False)
    return found.residual[N_LAYERS][0, -1], found.mlp[LAST][0, -1]


@torch.no_grad()
def head_outputs_sum_to_the_attention(engine: Engine, questions: Sequence[Question]) -> None:
    """sum_h z_h W_O[h] + b_O is what the attention puts out, in every layer at every position.

    And so are the mean outputs at the last token that OV readings are made of.
    """
    arch = engine.architecture
    layers = frozenset(range(N_LAYERS))
    means = head_outputs(engine, [question.prompt() for question in questions])
    total = torch.zeros(N_LAYERS, means.shape[-1], dtype=torch.float64)
    for question in questions:
        ids = torch.tensor([ids_of(question.text)])
        clean = arch.clean(ids, Kept(z=layers, attention=layers), logits=False)
        for layer in sorted(layers):
            modules, z = arch.layers[layer], clean.z[layer][0]
            due = clean.attention[layer][0]
            whole = torch.zeros_like(due)
            for head in range(arch.n_heads):
                (columns,) = arch.columns(layer, ((layer, head),))
                whole = whole + z[:, columns] @ arch.output_matrix(layer, columns)
            bias: Any = getattr(modules.output, "bias", None)
            whole = whole if bias is None else whole + bias
            off = (whole - due).abs().max().item()
            assert off <= STREAM_ROUNDING, (
                f"layer {layer}: head outputs and bias miss the attention's output by {off:.3g}, "
                f"for the prompt\n  {question!r}"
            )
            last = due[-1] if bias is None else due[-1] - bias
            total[layer] += last.double() / len(questions)
    off = (means.sum(dim=1) - total).abs().max().item()
    assert off <= STREAM_ROUNDING, f"mean head outputs are off by {off:.3g}, for {questions!r}"


class Interrupted(Exception):
    """Stands for whatever ends a measurement in the middle."""


# Where a measurement is broken off: in its hooks, between layers, and before the vocabulary.
PLACES = (
    (Rows, "_z"),
    (Rows, "_replaced"),
    (Rows, "final"),
    (Architecture, "after_attention"),
    (Architecture, "through"),
    (Architecture, "logits"),
)


@contextlib.contextmanager
def failing(place: tuple[type, str], calls: int, error: BaseException) -> Iterator[None]:
    """Raise the error when the method is called once more than so many times."""
    left = calls
    original = getattr(*place)

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return original(*args, **kwargs)

    with patch.object(*place, counting):
        yield


def the_model_is_left_as_it_was(
    engine: Engine, case: Case, place: tuple[type, str], calls: int, error: BaseException
) -> bool:
    """Measured, and broken off in mid-measure: outputs, hooks, weights are what they were, bit for bit.

    Returns whether it was broken off: there may be fewer calls.
    """
    model = engine.loaded.model
    before = [plain_logits(engine, prompt) for prompt in case.prompts]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = _hooks(model)
    expected = case.measure(engine)
    broken = False
    with failing(place, calls, error):
        try:
            case.measure(engine)
        except type(error):
            broken = True
    where = f"{'broken off in' if broken else 'after'} {place[1]}, call {calls}: {case!r}"
    for prompt, due in zip(case.prompts, before, strict=True):
        assert torch.equal(plain_logits(engine, prompt), due), f"the output moved, {where}"
    assert _hooks(model) == hooks, f"hooks are left, {where}"
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items()), (
        f"weights moved, {where}"
    )
    assert case.measure(engine).equals(expected), f"the table is another one, {where}"
    return broken


def _hooks(model: torch.nn.Module) -> list[tuple[int, int, bool]]:
    return [
        (len(each._forward_hooks), len(each._forward_pre_hooks), "forward" in vars(each))
        for each in model.modules()
    ]
