"""All-heads zero-ablation sweep: the engine against one hooked TransformerBridge run per head.

A random model of GPT-2 small's size on the confirmation halves of the project's own corpora, one
thread, float32. Both sides zero the same heads: all of every third layer, whose rows are as deep on
average as those of all layers. The plain loop is timed on a few of them, since every run of it
costs the same, and reckoned up. How near the engine comes to the limit is the least number of
operations that is left once prefixes are shared, at the rate of the machine's torch.mm, over the
time it took. Processor seconds throughout: with other work on the machine they are the steadier.
"""

import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.loops import hooked_loop
from benchmarks.record import BenchmarkError, Recording, parser
from benchmarks.shapes import GPT2_SMALL, Head, necessary_operations, random_model

ROOT = Path(__file__).resolve().parents[1]
RATIO = 8.0
SHARE = 0.85
AGREEMENT = 1e-4  # logits, between the engine and the plain loop
LAYERS = (1, 4, 7, 10)  # 5.5 on average, as 0 to 11
PLAIN_RUNS = 2  # hooked runs of the plain loop that are timed, beside one unhooked
PLAIN_BATCH = 32  # prompts


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

    from tinyablation.corpora.examples import CONDITIONS
    from tinyablation.runs.address import ENGINE_VERSION

    torch.set_num_threads(1)
    recording = Recording("engine", arguments.results)
    heads = [(layer, head) for layer in arguments.layers for head in range(GPT2_SMALL.n_heads)]
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

    from tinyablation.corpora.examples import load_corpus, load_split
    from tinyablation.corpora.tokenisation import encode_examples

    folder = ROOT / "corpora" / corpus
    examples = load_corpus(folder / f"{condition}.jsonl")
    split = load_split(folder / f"{condition}.split.json", examples)
    chosen = [
        examples.examples[row] for row, name in split.of_row().items() if name == "confirmation"
    ]
    found = AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
    return list(encode_examples(found, chosen, None))


def compare(prompts: list[Any], heads: list[Head]) -> dict[str, Any]:
    """Both sides on these prompts, in this process, CPU seconds of each."""
    import numpy as np

    from tinyablation.engine.engine import Engine
    from tinyablation.engine.hook_backends import BridgeHooks
    from tinyablation.interventions.interventions import AblateHeads

    engine = Engine(random_model(GPT2_SMALL))
    interventions = [AblateHeads((head,)) for head in heads]
    engine.measure(prompts[:4], interventions[:1])  # what is done once in a process
    before = torch_mm_rate()
    begin, cpu_begin = time.perf_counter(), time.process_time()
    frame = engine.measure(prompts, interventions, progress=True)
    engine_s, engine_cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    rate = max(before, torch_mm_rate())
    ours = frame.logit_diff.to_numpy().reshape(len(heads) + 1, len(prompts))
    timed = [0, *range(1, len(heads) + 1, len(heads) // PLAIN_RUNS)][: PLAIN_RUNS + 1]
    runs = [None if index == 0 else heads[index - 1] for index in timed]
    bridge = BridgeHooks(engine.loaded).bridge
    begin, cpu_begin = time.perf_counter(), time.process_time()
    # All prompts at once would hold gigabytes of logits.
    theirs = hooked_loop(bridge, prompts, runs, PLAIN_BATCH)
    plain_s, plain_cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    scale = (len(heads) + 1) / len(timed)
    off = float(np.abs(ours[timed] - theirs).max())
    if off > AGREEMENT:
        raise BenchmarkError(f"the engine differs from the plain loop by {off:.2g} logits")
    operations = necessary_operations([prompt.ids for prompt in prompts], heads, GPT2_SMALL)
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


def torch_mm_rate() -> float:
    """Operations a CPU second of torch.mm, of the shape of an MLP's matrix; the best of ten."""
    import torch

    rows, inner, columns = 2048, GPT2_SMALL.d_model, GPT2_SMALL.d_mlp
    one, other = torch.randn(rows, inner), torch.randn(inner, columns)
    out = torch.empty(rows, columns)
    best = float("inf")
    for _ in range(10):
        begin = time.process_time()
        torch.mm(one, other, out=out)
        best = min(best, time.process_time() - begin)
    return 2 * rows * inner * columns / best


if __name__ == "__main__":
    main()
