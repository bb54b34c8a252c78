"""Sweeps on a CUDA device: the engine against hooked TransformerBridge loops on the same device.

Random weights, two shapes. GPT-2 small in float32 (TF32 off) on the confirmation halves of the
embedded corpora: all heads of every third layer are zeroed, whose rows are as deep on average as
those of all layers. Mistral 7B in bfloat16 on 800 prompts, the first 200 of each of the four
conditions with the ids that the embedded tokenizer gives them (all below 1,404; the shape's
vocabulary has 32,000): all heads of four layers, 15.5 deep on average as 0 to 31, and the sweep of
all 1,024 heads reckoned from them, by the operations that are necessary.

There are two peers. The loop of a notebook runs one hooked forward pass a head and a prompt: with
prompts of some twenty tokens it does little but launch kernels, and the target is set against it.
The loop over heads alone runs all prompts of a condition in one padded batch, and has no target.
Both are timed on some heads (the first on some prompts, too), since every run costs the same, and
reckoned up. The share is what is left of the operations once prefixes are shared, at the rate of
torch.mm on large matrices in the same dtype, over the time. Wall seconds, the device synchronized.

The engine's batches are those of the device (tinyablation.models.bounds). `--bounds
21:128,25:1024,26:512,27:1024` times it with others in their place, and no loop: each pair is the
numbers of a batch as a power of two, and the nodes of a pack. Of GPT-2 small the heads of the same
layers on facts, of the 7B shape those of one layer; some two minutes on an H200. Predicted from
what was tried by hand there: 2.4 s with 21:128 and 1.4 s with 25:1024 at GPT-2 small's size; at the
7B shape's 11.2 s with 21:128, 4.3 to 4.8 s with 26:512 and 1.5 GB more, 3.8 s with 27:1024 and 6 GB
more.

`26:512:sdpa` takes torch's fused attention, which never writes the scores; eager attention writes
or reads them some eight times, and with 512 nodes and a d_head of 128 they are as wide as four
residual streams. Figures are the same but for rounding (tests/engine/test_engine_packs.py).
Predicted at the 7B shape, from the bytes that are not moved at 4.8 TB/s: .15 s less with 21:128,
.6 s with 26:512, 1.2 s with 27:1024.

`26:512:sdpa:compiled` has torch.compile fuse RMS norms and MLPs (it needs a C compiler). In
bfloat16 an RMS norm of transformers moves some 36 bytes a number of the stream and a fused one 4, a
gated activation 10 a number of the MLP and a fused one 6. Predicted at the 7B shape: 8 % less time
than 26:512:sdpa takes; nothing at GPT-2 small's, whose norms and activations are single kernels.
CUDA graphs have no setting: with batches of these sizes a layer takes some 10 ms and launching its
kernels .3, so that they are predicted to save 3 % at most.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.device import cuda_device, mm_rate, synchronize, timed
from benchmarks.loops import hooked_loop
from benchmarks.record import BenchmarkError, Recording, parser
from benchmarks.settings import AGREEMENT, settings_named, sweep
from benchmarks.shapes import (
    GPT2_SMALL,
    MISTRAL_7B,
    Head,
    Shape,
    necessary_operations,
    random_model,
)
from benchmarks.timing import ROOT
from tinyablation.models.devices import peak_bytes, reset_peak

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.models.loading import LoadedModel

RATIO = 30.0  # against one hooked run a head and a prompt
TOKENIZER = ROOT / "fixtures" / "organisms" / "tiny-gpt2"
PLAIN_RUNS = 2  # hooked runs of a loop that are timed, beside one unhooked
PLAIN_BATCH = 256  # prompts at once in the loop over heads: all of a condition
ALONE = 24  # prompts of the loop over heads and prompts that are timed
LARGE_PROMPTS = 800
MM_SIZE = 8192

SMALL_LAYERS = (1, 4, 7, 10)  # 5.5 on average, as 0 to 11
LARGE_LAYERS = (3, 12, 19, 28)  # 15.5 on average, as 0 to 31
SWEPT_LAYER = 12  # of the large shape, where bounds are swept


def main(given: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--only", choices=("small", "large"), help="one of the two shapes")
    options.add_argument(
        "--layers", type=int, nargs="+", default=LARGE_LAYERS, help="of the large shape"
    )
    options.add_argument(
        "--heads", type=int, default=MISTRAL_7B.n_heads, help="of each of those layers, from 0 on"
    )
    options.add_argument(
        "--prompts", type=int, default=LARGE_PROMPTS, help="of the large shape, of four conditions"
    )
    options.add_argument(
        "--bounds",
        type=settings_named,
        metavar="B:N[:A][:compiled],...",
        help="time the engine with these settings instead: batches of 2^B numbers, packs of N "
        "nodes; A is its attention, sdpa or eager (default); compiled norms and MLPs",
    )
    arguments = options.parse_args(given)
    device = cuda_device()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch

    from benchmarks.engine import corpus_prompts
    from tinyablation.corpora.examples import CONDITIONS
    from tinyablation.runs.address import ENGINE_VERSION

    torch.set_float32_matmul_precision("highest")  # no TF32
    recording = Recording("gpu", arguments.results)
    details: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    if arguments.bounds:
        facts = corpus_prompts(TOKENIZER, "tiny", "facts")
        chosen = {
            "small": (GPT2_SMALL, torch.float32, SMALL_LAYERS, facts),
            "large": (MISTRAL_7B, torch.bfloat16, [SWEPT_LAYER], first_prompts(arguments.prompts)),
        }
        for name in [arguments.only] if arguments.only else chosen:
            shape, dtype, layers, own = chosen[name]
            heads = [(layer, head) for layer in layers for head in range(shape.n_heads)]
            loaded = random_model(shape, device, dtype)
            details[name] = sweep(recording, loaded, own, heads, arguments.bounds)
            del loaded
        recording.write(details, device)
        return
    if arguments.only != "large":
        prompts = {name: corpus_prompts(TOKENIZER, "tiny", name) for name in CONDITIONS}
        details["small"] = small(recording, prompts, SMALL_LAYERS, device)
    if arguments.only != "small":
        heads = [(layer, head) for layer in arguments.layers for head in range(arguments.heads)]
        details["large"] = large(recording, first_prompts(arguments.prompts), heads, device)
    recording.write(details, device)


# --- the two shapes -------------------------------------------------------------------------------


def small(
    recording: Recording,
    prompts: "dict[str, list[Prompt]]",
    layers: Sequence[int],
    device: str,
    *,
    shape: Shape = GPT2_SMALL,
    mm_size: int = MM_SIZE,
) -> dict[str, Any]:
    """Figures of a GPT-2 in float32, condition by condition and together; what they are made of."""
    import torch

    loaded = random_model(shape, device, torch.float32)
    rate = mm_rate(device, torch.float32, mm_size)
    heads = [(layer, head) for layer in layers for head in range(shape.n_heads)]
    found = {}
    for condition, own in prompts.items():
        found[condition] = compare(loaded, own, heads, shape, AGREEMENT)
        said = f"GPT-2 small, float32, zero {len(heads)} heads, {condition}"
        add_sweep(recording, said, found[condition])
    whole = {key: sum(of[key] for of in found.values()) for key in TIMES}
    said = f"GPT-2 small, float32, zero {len(heads)} heads, all conditions"
    add_sweep(recording, said, whole, at_least=RATIO)
    share = sum(of["necessary_flop"] for of in found.values()) / rate / whole["engine_s"]
    recording.add("GPT-2 small, float32, share of torch.mm, necessary operations", share, "")
    return {
        "mm_tflops": round(rate / 1e12, 2),
        "heads": len(heads),
        "share": round(share, 4),
        "conditions": found,
    }


def large(
    recording: Recording,
    prompts: "list[Prompt]",
    heads: Sequence[Head],
    device: str,
    *,
    shape: Shape = MISTRAL_7B,
    mm_size: int = MM_SIZE,
) -> dict[str, Any]:
    """Figures of a Mistral in bfloat16, and of its whole sweep by them; what they are made of."""
    import torch

    from tinyablation.measurement.precision import TOLERANCES

    begin = time.perf_counter()
    loaded = random_model(shape, device, torch.bfloat16)
    synchronize(device)
    building_s = time.perf_counter() - begin
    rate = mm_rate(device, torch.bfloat16, mm_size)
    found = compare(loaded, prompts, heads, shape, TOLERANCES["bfloat16"])
    name = f"7B shape, bfloat16, {len(prompts)} prompts"
    add_sweep(recording, f"{name}, zero {len(heads)} heads", found)
    share = found["necessary_flop"] / rate / found["engine_s"]
    recording.add("7B shape, bfloat16, share of torch.mm, necessary operations", share, "")
    every = [(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    ids = [prompt.ids for prompt in prompts]
    whole = necessary_operations(ids, every, shape)["flop"] / found["necessary_flop"]
    runs = (len(every) + 1) / (len(heads) + 1)
    sweep_s = found["engine_s"] * whole
    recording.add(
        *(f"{name}, all {len(every):,} heads, reckoned", sweep_s, "s"),
        *("hooked loop over heads, all prompts at once", found["batched_s"] * runs),
        faster=True,
    )
    if found["peak_bytes"] is not None:
        recording.add(f"{name}, peak memory of the device", found["peak_bytes"] / 1e9, "GB")
    return {
        "building_s": round(building_s, 2),
        "mm_tflops": round(rate / 1e12, 2),
        "heads": [list(head) for head in heads],
        "share": round(share, 4),
        "sweep_s": round(sweep_s, 2),
        "sweep_necessary_tflop": round(whole * found["necessary_flop"] / 1e12, 1),
    } | found


def add_sweep(
    recording: Recording, what: str, found: dict[str, Any], at_least: float | None = None
) -> None:
    """The engine's seconds against either loop's; at_least: the target against the notebook's."""
    recording.add(
        *(what, found["engine_s"], "s", "hooked loop over heads and prompts", found["alone_s"]),
        faster=True,
        at_least=at_least,
    )
    recording.add(
        *(what, found["engine_s"], "s"),
        *("hooked loop over heads, all prompts at once", found["batched_s"]),
        faster=True,
    )


def first_prompts(count: int) -> "list[Prompt]":
    """The first clean prompts of each of the four conditions, as many in all."""
    from transformers import AutoTokenizer

    from tinyablation.corpora.examples import CONDITIONS, load_corpus
    from tinyablation.corpora.tokenisation import encode_examples

    tokenizer = AutoTokenizer.from_pretrained(str(TOKENIZER), local_files_only=True)
    found: list[Prompt] = []
    for index, condition in enumerate(CONDITIONS):
        own = count * (index + 1) // len(CONDITIONS) - count * index // len(CONDITIONS)
        examples = load_corpus(ROOT / "corpora" / "tiny" / f"{condition}.jsonl").examples
        if own > len(examples):
            raise BenchmarkError(f"{condition} has {len(examples)} prompts, fewer than {own}")
        found += encode_examples(tokenizer, examples[:own], None)
    return found


# --- both sides -----------------------------------------------------------------------------------

TIMES = ("engine_s", "batched_s", "alone_s")


def compare(
    loaded: "LoadedModel",
    prompts: "list[Prompt]",
    heads: Sequence[Head],
    shape: Shape,
    agreement: float,
) -> dict[str, Any]:
    """The engine and both loops on these prompts, in this process, in seconds.

    agreement: the largest difference in LD that is let pass, as a share of the largest and of 1 at
    least; BenchmarkError where there is a larger one.
    """
    import numpy as np

    from tinyablation.engine.engine import Engine
    from tinyablation.engine.hook_backends import BridgeHooks
    from tinyablation.interventions.interventions import AblateHeads

    device = str(loaded.device)
    engine = Engine(loaded)
    interventions = [AblateHeads((head,)) for head in heads]
    # What is done once in a process; kernels are chosen by the shapes of these very prompts.
    _, first_s = timed(device, lambda: engine.measure(prompts, interventions[:1]))
    reset_peak(device)
    frame, engine_s = timed(device, lambda: engine.measure(prompts, interventions))
    peak = peak_bytes(device)
    ours = frame.logit_diff.to_numpy().reshape(len(heads) + 1, len(prompts))

    bridge = BridgeHooks(loaded).bridge  # around modules of its own, over the same weights
    every = [None, *heads]
    step = max(1, len(heads) // PLAIN_RUNS)
    runs = [0, *range(1, len(every), step)][: PLAIN_RUNS + 1]
    some = sorted({int(row) for row in np.linspace(0, len(prompts) - 1, ALONE).round()})
    found: dict[str, Any] = {}
    for name, rows, size in (
        ("batched", list(range(len(prompts))), PLAIN_BATCH),
        ("alone", some, 1),
    ):
        chosen = [prompts[row] for row in rows]

        def loop(of: Sequence[int], chosen: Any = chosen, size: int = size) -> Any:
            return hooked_loop(bridge, chosen, [every[run] for run in of], size, device)

        loop(runs[:1])  # for nothing, as above
        theirs, seconds = timed(device, lambda loop=loop: loop(runs))
        scale = len(every) / len(runs) * len(prompts) / len(rows)
        here = ours[np.ix_(runs, rows)]
        off = float(np.abs(here - theirs).max())
        if off > agreement * max(1.0, float(np.abs(theirs).max())):
            raise BenchmarkError(f"engine and {name} loop differ by {off:.2g} logits")
        found |= {
            f"{name}_s": round(seconds * scale, 3),
            f"{name}_timed_s": round(seconds, 3),
            f"{name}_timed_runs": [len(runs), len(rows)],
            f"{name}_largest_difference": off,
        }
    operations = necessary_operations([prompt.ids for prompt in prompts], heads, shape)
    lengths = [len(prompt.ids) for prompt in prompts]
    return {
        "prompts": len(prompts),
        "tokens": [min(lengths), max(lengths)],
        "shared_prefix_ratio": round(sum(lengths) / operations["nodes"], 3),
        "engine_s": round(engine_s, 3),
        "first_head_s": round(first_s, 3),
        "necessary_flop": operations["flop"],
        "largest_effect": float(np.abs(ours[1:] - ours[:1]).max()),
        "bounds": engine.bounds._asdict(),
        "batch_halvings": engine.room.halvings,
        "peak_bytes": peak,
    } | found


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmarks.gpu: {error}")
