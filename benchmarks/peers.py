"""Zero ablation of heads: the engine against the loops that a user would write without it.

The same heads on the same prompts in one process, of a pretrained model (SmolLM2-135M, on a
condition of its own corpora) and of a random one of GPT-2 small's size. One thread, float32. The
loops run the model once for each head, over batches of prompts of one length, which need no
padding, and compute the logits of the last token alone:

- plain Hugging Face: a forward-pre-hook on the output projection zeroes the head's columns; with
  attention as transformers chooses it (sdpa), where the engine takes eager;
- TransformerBridge: run_with_hooks, a hook on hook_z;
- nnsight: a trace a batch, if it is installed (`pip install nnsight`).

Each gives logit differences alone, the engine also the other figures of its table. All are to agree
with the plain loop. The heads are spread evenly over all layers, so that they are as deep on
average as all heads are; a sweep of whole layers has larger batches. The prompts are a condition's
first ones, which share as many prefixes as all of it (2.15 tokens a node of the trie for 2.16 in
facts of SmolLM2). Processor seconds, the best of repetitions in turn, each side first once for
nothing; memory is what a side adds to the process at its peak (Linux).
"""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.loops import bridge_pass, hugging_face_pass, loop_by_length, nnsight_pass, twin
from benchmarks.record import BenchmarkError, Recording, parser
from benchmarks.shapes import GPT2_SMALL, Head, Shape, random_model
from benchmarks.timing import ROOT
from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.models.loading import LoadedModel

RATIO = 3.0  # against the plain loop, at SmolLM2: 3.1 was seen before there was this benchmark
AGREEMENT = 1e-4  # of logit differences with the plain loop's: float32, sums in other orders
PRETRAINED = "smollm2-135m"
RANDOM = "random-gpt2-small"
PROMPTS_OF_RANDOM = "tiny-gpt2"  # whose tokenizer gives the prompts of a random model
ENGINE = "Engine.measure"
PLAIN = "plain Hugging Face loop"
BRIDGE = "hooked TransformerBridge loop"
NNSIGHT = "nnsight traces"
PEERS = (PLAIN, BRIDGE, NNSIGHT)
NOT_INSTALLED = "not installed"
WARMING = 8  # prompts


class Run(NamedTuple):
    """One run of a side: seconds, and what it added to the process at its peak, in MB (2^20)."""

    cpu: float
    wall: float
    megabytes: int | None


def main(given: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument(
        "--models",
        nargs="+",
        default=[PRETRAINED, RANDOM],
        help=f"ids of fixtures/models.toml, or {RANDOM}",
    )
    options.add_argument("--condition", default="facts", help="whose prompts are measured")
    options.add_argument("--heads", default="12", help="how many, spread over the layers; or all")
    options.add_argument("--limit", type=int, default=384, help="the most prompts")
    options.add_argument("--batch", type=int, default=64, help="the most prompts in a loop's pass")
    options.add_argument("--repetitions", type=int, default=2, help="of each side, in turn")
    arguments = options.parse_args(given)
    if arguments.heads != "all" and not arguments.heads.isdecimal():
        options.error(f"--heads {arguments.heads}: give a number or all")

    import torch

    from tinyablation.runs.address import ENGINE_VERSION

    torch.set_num_threads(1)
    recording = Recording("peers", arguments.results)
    details: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "nnsight": nnsight_version(),
        "threads": torch.get_num_threads(),
        "batch": arguments.batch,
        "condition": arguments.condition,
    }
    if details["nnsight"] == NOT_INSTALLED:
        print(f"nnsight: {NOT_INSTALLED}")
    for name in arguments.models:
        loaded, prompts = subject(name, arguments.condition, arguments.limit)
        facts = loaded.facts
        count = facts.n_layers * facts.n_heads
        count = count if arguments.heads == "all" else min(count, int(arguments.heads))
        heads = spread_heads(count, facts.n_layers, facts.n_heads)
        found = compare(loaded, prompts, heads, arguments.batch, arguments.repetitions)
        add(recording, f"{name}, zero {len(heads)} heads, {len(prompts)} prompts", found, name)
        details[name] = found
    recording.write(details)


def nnsight_version() -> str:
    """The version of nnsight, or that it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nnsight")
    except PackageNotFoundError:
        return NOT_INSTALLED


def add(recording: Recording, what: str, found: dict[str, Any], name: str) -> None:
    """The engine's seconds against those of each peer, its memory against the plain loop's."""
    ours = found["sides"][ENGINE]
    for peer in PEERS:
        theirs = found["sides"].get(peer)
        if theirs is None:
            continue
        recording.add(
            *(what, ours["cpu_s"], "s", peer, theirs["cpu_s"]),
            faster=True,
            at_least=RATIO if (name, peer) == (PRETRAINED, PLAIN) else None,
        )
        if peer == PLAIN and ours["megabytes"] and theirs["megabytes"]:
            recording.add(
                *(f"{what}, memory beside the weights", ours["megabytes"], "MB"),
                *(peer, theirs["megabytes"]),
            )


# --- what is measured -----------------------------------------------------------------------------


def subject(
    name: str, condition: str, limit: int, shape: Shape = GPT2_SMALL
) -> "tuple[LoadedModel, list[Prompt]]":
    """A model, and the first prompts of a condition for its tokenizer.

    shape: of the random model.
    """
    from tinyablation.corpora.library import Library
    from tinyablation.corpora.tokenisation import encode_examples
    from tinyablation.models.loading import describe, load_model
    from tinyablation.models.registry import load_registry

    registry = load_registry(ROOT / "fixtures" / "models.toml")
    entry = registry[PROMPTS_OF_RANDOM if name == RANDOM else name]
    own = load_model(entry, dtype="float32", facts=describe(entry))
    corpus, _ = Library(ROOT / "corpora").corpus(own.facts.folder, condition, entry.id)
    prompts = encode_examples(own.tokenizer, corpus.examples[:limit], own.bos_id)
    return random_model(shape) if name == RANDOM else own, list(prompts)


def spread_heads(count: int, n_layers: int, n_heads: int) -> list[Head]:
    """So many heads at equal steps through the model, from half a step on; all are all of them."""
    every = n_layers * n_heads
    return [divmod((2 * number + 1) * every // (2 * count), n_heads) for number in range(count)]


def compare(
    loaded: "LoadedModel",
    prompts: "list[Prompt]",
    heads: Sequence[Head],
    batch: int,
    repetitions: int,
) -> dict[str, Any]:
    """All sides in turn; what each took, by name, and what was measured.

    BenchmarkError where one differs from the plain loop by more than AGREEMENT.
    """
    import numpy as np

    from tinyablation.engine.prefix_trie import trie

    sides = sides_of(loaded, batch)
    every = [None, *heads]
    for work in sides.values():
        work(prompts[:WARMING], every[:2])
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for repetition in range(repetitions):
        # Every other time in the opposite order.
        for name in list(sides)[:: 1 - 2 * (repetition % 2)]:
            found[name], run = timed(lambda name=name: sides[name](prompts, every))
            runs[name].append(run)
            print(f"{loaded.entry.id}, {name}: {run.cpu:.2f} s", flush=True)
    differences = {name: float(np.abs(found[name] - found[PLAIN]).max()) for name in sides}
    for name, difference in differences.items():
        if not difference <= AGREEMENT:
            raise BenchmarkError(
                f"{loaded.entry.id}: {name} and {PLAIN} differ by {difference:.2g} logits"
            )
    lengths = [len(prompt.ids) for prompt in prompts]
    nodes = len(trie(list(dict.fromkeys(prompt.ids for prompt in prompts))).tokens)
    return {
        "prompts": len(prompts),
        "tokens": [min(lengths), max(lengths)],
        "shared_prefix_ratio": round(sum(lengths) / nodes, 3),
        "heads": [list(head) for head in heads],
        "largest_effect": float(np.abs(found[PLAIN][1:] - found[PLAIN][:1]).max()),
        "sides": {
            name: {
                "cpu_s": min(run.cpu for run in of),
                "megabytes": max((run.megabytes or 0 for run in of), default=0) or None,
                "runs": [run._asdict() for run in of],
                "largest_difference": differences[name],
            }
            for name, of in runs.items()
        },
    }


def sides_of(loaded: "LoadedModel", batch: int) -> dict[str, Callable[..., Any]]:
    """By name, what gives LD [heads, prompts] for prompts and heads (None first: no head)."""
    from tinyablation.engine.architecture import Architecture
    from tinyablation.engine.engine import Engine
    from tinyablation.engine.hook_backends import BridgeHooks
    from tinyablation.interventions.interventions import AblateHeads

    architecture = Architecture(loaded)
    names = {module: name for name, module in loaded.model.named_modules()}
    outputs = [names[layer.output] for layer in architecture.layers]
    plain = twin(loaded.model)
    plain.set_attn_implementation("sdpa")

    def engine(prompts: "Sequence[Prompt]", heads: Sequence[Head | None]) -> Any:
        zeroed = [AblateHeads((head,)) for head in heads if head is not None]
        frame = Engine(loaded).measure(prompts, zeroed)  # with its checks of the model
        return frame.logit_diff.to_numpy().reshape(len(heads), len(prompts))

    passes = {
        PLAIN: hugging_face_pass(plain, outputs, architecture.d_head),
        BRIDGE: bridge_pass(BridgeHooks(loaded).bridge),
    }
    if nnsight_version() != NOT_INSTALLED:
        passes[NNSIGHT] = nnsight_pass(twin(plain), outputs, architecture.d_head)
    loops = {
        name: lambda prompts, heads, run=run: loop_by_length(run, prompts, heads, batch)
        for name, run in passes.items()
    }
    return {ENGINE: engine, **loops}


# --- what it takes --------------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> tuple[Any, Run]:
    """What the work gave, and what it took."""
    before = restart_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    grown = None if before is None else (status("VmHWM") - before) // 1024
    return found, Run(round(cpu, 3), round(wall, 3), grown)


def restart_peak() -> int | None:
    """Restart the kernel's count of this process's peak memory; its memory now, in kB.

    What the allocator keeps of the side before goes back first. None where the system has no such
    count: only Linux has it (proc(5), clear_refs).
    """
    if sys.platform != "linux":
        return None
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)  # glibc's alone
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return status("VmRSS")


def status(field: str) -> int:
    """A figure of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    try:
        main()
    except TinyAblationError as error:
        sys.exit(f"benchmarks.peers: {error}")
