"""All-heads zero-ablation sweep: the engine against one hooked TransformerBridge run per head.

A random model of GPT-2 small's size on the confirmation halves of the project's own corpora, one
thread, float32. Both sides zero the same heads: all of every third layer, whose rows are as deep on
average as those of all layers. The plain loop is timed on a few of them, since every run of it
costs the same, and reckoned up. How near the engine comes to the limit is the least number of
operations that is left once prefixes are shared, at the rate of the machine's torch.mm, over the
time it took. Processor seconds throughout: with other work on the machine they are the steadier.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.record import BenchmarkError, Recording, parser

ROOT = Path(__file__).resolve().parents[1]
RATIO = 8.0
SHARE = 0.85
AGREEMENT = 1e-4  # logits, between the engine and the plain loop
SEED = 0
VOCABULARY = 50257
N_LAYERS, N_HEADS, D_MODEL = 12, 12, 768
LAYERS = (1, 4, 7, 10)  # 5.5 on average, as 0 to 11
PLAIN_RUNS = 2  # hooked runs of the plain loop that are timed, beside one unhooked


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, nargs="+", default=LAYERS, help="of the heads")
    options.add_argument("--conditions", nargs="+", help="of the corpora; all four if not given")
    options.add_argument("--corpus", default="tiny", help="a folder of corpora/")
    options.add_argument(
        "--tokenizer",
        type=Path,
        default=ROOT / "fixtures" / "organisms" / "tiny-gpt2",
        help="the tokenizer it was built for",
    )
    arguments = options.parse_args()

    import torch

    from tinyablation.corpora import CONDITIONS
    from tinyablation.engine import ENGINE_VERSION

    torch.set_num_threads(1)
    recording = Recording("engine", arguments.results)
    heads = [(layer, head) for layer in arguments.layers for head in range(N_HEADS)]
    results = {}
    for condition in arguments.conditions or CONDITIONS:
        prompts = corpus_prompts(arguments.tokenizer, arguments.corpus, condition)
        results[condition] = found = compare(prompts, heads)
        recording.add(
            *(f"zero {len(heads)} heads, {condition}", found["engine_cpu_s"], "s"),
            *("plain hooked loop", found["plain_cpu_s"]),
            faster=True,
        )
    plain, engine, least = (
        sum(result[key] for result in results.values())
        for key in ("plain_cpu_s", "engine_cpu_s", "least_cpu_s")
    )
    what = f"zero {len(heads)} heads, all conditions"
    recording.add(what, engine, "s", "plain hooked loop", plain, faster=True, at_least=RATIO)
    recording.add("share of torch.mm, necessary operations", least / engine, "", at_least=SHARE)
    recording.write({"engine": ENGINE_VERSION, "corpora": arguments.corpus, "conditions": results})


def corpus_prompts(tokenizer: Path, corpus: str, condition: str) -> list[Any]:
    """The clean prompts of a condition's confirmation split."""
    from transformers import AutoTokenizer

    from tinyablation.corpora import load_corpus, load_split
    from tinyablation.tokenisation import encode_examples

    folder = ROOT / "corpora" / corpus
    examples = load_corpus(folder / f"{condition}.jsonl")
    split = load_split(folder / f"{condition}.split.json", examples)
    chosen = [
        examples.examples[row] for row, name in split.of_row().items() if name == "confirmation"
    ]
    found = AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
    return list(encode_examples(found, chosen, None))


def compare(prompts: list[Any], heads: list[tuple[int, int]]) -> dict[str, Any]:
    """Both sides on these prompts, in this process, CPU seconds of each."""
    import numpy as np

    from tinyablation.engine import Engine
    from tinyablation.interventions import AblateHeads

    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(random_model(Path(folder)))
        interventions = [AblateHeads((head,)) for head in heads]
        engine.measure(prompts[:4], interventions[:1])  # what is done once in a process
        before = torch_mm_rate()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        frame = engine.measure(prompts, interventions, progress=True)
        engine_s, engine_cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
        rate = max(before, torch_mm_rate())
        ours = frame.logit_diff.to_numpy().reshape(len(heads) + 1, len(prompts))
        # The bridge wraps the model in place, so the engine had its turn first.
        timed = [0, *range(1, len(heads) + 1, len(heads) // PLAIN_RUNS)][: PLAIN_RUNS + 1]
        runs = [None if index == 0 else heads[index - 1] for index in timed]
        begin, cpu_begin = time.perf_counter(), time.process_time()
        theirs = plain_loop(engine.loaded, prompts, runs)
        plain_s, plain_cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    scale = (len(heads) + 1) / len(timed)
    off = float(np.abs(ours[timed] - theirs).max())
    if off > AGREEMENT:
        raise BenchmarkError(f"the engine differs from the plain loop by {off:.2g} logits")
    operations = necessary_operations([prompt.ids for prompt in prompts], heads)
    lengths = [len(prompt.ids) for prompt in prompts]
    return {
        "prompts": len(prompts),
        "tokens": [min(lengths), max(lengths)],
        "shared_prefix_ratio": round(sum(lengths) / operations["nodes"], 3),
        "plain_s": round(plain_s * scale, 1),
        "engine_s": round(engine_s, 1),
        "plain_cpu_s": round(plain_cpu_s * scale, 1),
        "engine_cpu_s": round(engine_cpu_s, 2),
        "ratio": round(plain_cpu_s * scale / engine_cpu_s, 2),
        "necessary_tflop": round(operations["flop"] / 1e12, 3),
        "mm_gflops": round(rate / 1e9, 1),
        "least_cpu_s": round(operations["flop"] / rate, 2),
        "share_of_limit": round(operations["flop"] / rate / engine_cpu_s, 3),
        "largest_difference_in_logit_diff": off,
    }


def necessary_operations(
    prompts: Sequence[tuple[int, ...]], heads: Sequence[tuple[int, int]]
) -> dict[str, int]:
    """Multiplications and additions of matrix products that no exact way can leave out.

    Every distinct prefix once; of the layer of the head its MLP; of the last layer keys and values
    everywhere and the rest where prompts end; the vocabulary for every prompt. Attention counts the
    tokens that are looked at. Clean passes, norms and activation functions count nothing.
    """
    from tinyablation.tries import trie

    nodes = trie(list(dict.fromkeys(prompts)))
    n, ends = len(nodes.tokens), len(set(nodes.ends.tolist()))
    square = 2 * D_MODEL**2
    looks = 4 * D_MODEL * int((nodes.positions + 1).sum())
    end_looks = 4 * D_MODEL * int((nodes.positions[list(set(nodes.ends.tolist()))] + 1).sum())
    mlp, whole = 8 * square, 12 * square
    total = 0
    for layer, _ in heads:
        send = 2 * (D_MODEL // N_HEADS) * D_MODEL
        last = N_LAYERS - 1
        total += (send + mlp) * (ends if layer == last else n)
        total += (last - 1 - layer) * (whole * n + looks) if layer < last else 0
        if layer < last:
            total += 2 * square * n + (whole - 2 * square) * ends + end_looks
        total += 2 * D_MODEL * VOCABULARY * ends
    return {"flop": total, "nodes": n}


def torch_mm_rate() -> float:
    """Operations a CPU second of torch.mm, of the shape of an MLP's matrix; the best of ten."""
    import torch

    rows, inner, columns = 2048, D_MODEL, 4 * D_MODEL
    one, other = torch.randn(rows, inner), torch.randn(inner, columns)
    out = torch.empty(rows, columns)
    best = float("inf")
    for _ in range(10):
        begin = time.process_time()
        torch.mm(one, other, out=out)
        best = min(best, time.process_time() - begin)
    return 2 * rows * inner * columns / best


def random_model(folder: Path, n_layers: int = N_LAYERS) -> Any:
    """A GPT-2 with random weights, saved nowhere: its facts are written down here."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from tinyablation.loading import LoadedModel, ModelFacts
    from tinyablation.registry import ModelEntry

    torch.manual_seed(SEED)
    config = GPT2Config(n_layer=n_layers, attn_implementation="eager")
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    entry = ModelEntry(
        id="random-gpt2-small",
        title="GPT-2 small, random weights",
        source=folder,
        family="gpt2",
        variant="plain",
        bos=False,
    )
    facts = ModelFacts(
        architecture="GPT2LMHeadModel",
        model_type="gpt2",
        n_layers=n_layers,
        n_heads=N_HEADS,
        d_model=D_MODEL,
        vocab_size=VOCABULARY,
        context=1024,
        sliding_window=None,
        weight_hash="random",
        config_hash="none",
        tokenizer_hash="none",
        weight_bytes=0,
        bos=False,
        folder=folder,
    )
    tokenizer: Any = None
    device = torch.device("cpu")
    return LoadedModel(entry, facts, model, tokenizer, None, device, torch.float32)


def plain_loop(loaded: Any, prompts: list[Any], heads: Sequence[tuple[int, int] | None]) -> Any:
    """Logit differences [heads, prompts]: one bridge run a head on the padded batch."""
    import numpy as np
    import torch
    from tqdm import tqdm
    from transformer_lens.model_bridge.sources._bridge_builder import (
        build_bridge_from_module,
    )

    bridge = build_bridge_from_module(
        loaded.model, "GPT2LMHeadModel", hf_config=loaded.model.config, tokenizer=None
    )
    longest = max(len(prompt.ids) for prompt in prompts)
    found = []
    with torch.no_grad():
        for head in tqdm(heads, desc="plain loop", unit="run"):
            hooks = []
            if head is not None:

                def zero(z: Any, hook: Any, index: int = head[1]) -> Any:
                    z[:, :, index] = 0
                    return z

                hooks = [(f"blocks.{head[0]}.attn.hook_z", zero)]
            parts = []
            # In batches of 32: all prompts at once would hold gigabytes of logits.
            for begin in range(0, len(prompts), 32):
                batch = prompts[begin : begin + 32]
                row = torch.arange(len(batch))
                ids = torch.tensor([p.ids + (0,) * (longest - len(p.ids)) for p in batch])
                last = torch.tensor([len(p.ids) - 1 for p in batch])
                logits = bridge.run_with_hooks(
                    ids, fwd_hooks=hooks, prepend_bos=False, return_type="logits"
                )[row, last]
                targets = torch.tensor([p.target for p in batch])
                foils = torch.tensor([p.foil for p in batch])
                parts.append((logits[row, targets] - logits[row, foils]).double().numpy())
            found.append(np.concatenate(parts))
    return np.stack(found)


if __name__ == "__main__":
    main()
