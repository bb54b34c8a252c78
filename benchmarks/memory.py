"""Memory of four workers on one CPU against one: do they share the weights?

Linux only: it reads /proc. Three loads of a random Llama-like model of some 3 GB in float32, each
by one worker process and then by several, who load it through tinyablation.models.loading, run one
prompt and wait: a float32 checkpoint; a float16 one that every worker casts; the same through a
converted copy of the weights.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.record import Recording, parser
from benchmarks.timing import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GOAL = 1.4  # times one worker's
SEED = 0
VOCABULARY = 4000
PROMPT = 12  # tokens
FIGURES = ("Pss", "Pss_Anon", "Pss_File")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=15, help="of the model: 202 MB each")
    options.add_argument("--workers", type=int, default=4, help="worker processes")
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--copy", action="store_true", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if sys.platform != "linux":
        options.error("it reads /proc/PID/smaps_rollup, which only Linux has")
    if arguments.worker is not None:
        work(arguments.worker, arguments.copy)
        return

    recording = Recording("memory", arguments.results)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_HOME"] = str(folder / "home")  # the copy goes where the checkpoint goes
        sizes = {
            dtype: checkpoint(folder / dtype, arguments.layers, dtype)
            for dtype in ("float32", "float16")
        }
        found = {}
        for label, dtype, copy in (
            ("float32 checkpoint", "float32", False),
            ("float16 checkpoint, cast by each", "float16", False),
            ("float16 checkpoint, converted copy", "float16", True),
        ):
            one, several = (
                measure(folder / dtype, copy, count) for count in (1, arguments.workers)
            )
            ratio = several["total"]["Pss"] / one["total"]["Pss"]
            found[label] = {"1": one, str(arguments.workers): several, "ratio": round(ratio, 3)}
            recording.add(
                *(f"{label}, {arguments.workers} workers", several["total"]["Pss"], "MB"),
                *("1 worker", one["total"]["Pss"]),
                at_most=None if "cast" in label else GOAL,
            )
    recording.write(
        {
            "unit": "MB (2^20 bytes) of proportional set size, after one forward pass",
            "layers": arguments.layers,
            "workers": arguments.workers,
            "weight_bytes": sizes,
            "loads": found,
        }
    )


def checkpoint(folder: Path, n_layers: int, dtype: str) -> int:
    """Write a random model and a tokenizer, one tensor at a time; the bytes of its weights."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    from tinyablation.models.weight_copies import Layout, write_tensors

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=n_layers,
        num_attention_heads=16,
        max_position_embeddings=512,
        architectures=["LlamaForCausalLM"],
        dtype=dtype,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    layout = {name: Layout(dtype, tuple(each.shape)) for name, each in model.state_dict().items()}
    generator = torch.Generator().manual_seed(SEED)

    def make(name: str) -> torch.Tensor:
        noise = torch.randn(layout[name].shape, generator=generator) * 0.02
        return (noise + 1 if "norm" in name else noise).to(getattr(torch, dtype))

    folder.mkdir()
    config.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(
        folder
    )
    write_tensors(folder / "model.safetensors", layout, make, {"format": "pt"})
    return (folder / "model.safetensors").stat().st_size


def measure(folder: Path, copy: bool, count: int) -> dict[str, Any]:
    """Proportional set sizes in MB of so many workers that have the model at the same time.

    Pss counts every page as a share: one that four processes map counts a quarter in each, so the
    sum over processes is what they take together.
    """
    command = [sys.executable, "-m", "benchmarks.memory", "--worker", str(folder)]
    command += ["--copy"] if copy else []
    with ExitStack() as stack:
        workers = []
        seconds = []
        for _ in range(count):  # one by one: the peak of loading is no subject here
            process = stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            assert process.stdin is not None and process.stdout is not None
            stack.callback(process.stdin.close)  # on which it ends
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"a worker failed: {' '.join(command)}")
            seconds.append(json.loads(line)["seconds"])
            workers.append(process)
        each = [rollup(process.pid) for process in workers]
    return {
        "total": {name: sum(one[name] for one in each) for name in FIGURES},
        "workers": each,
        "loading_seconds": seconds,
    }


def rollup(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return {name: found[name] // 1024 for name in FIGURES}


def work(folder: Path, copy: bool) -> None:
    """A worker: load, run one prompt, say so, and wait for the end of stdin."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from tinyablation.models.loading import describe, load_model
    from tinyablation.models.registry import ModelEntry
    from tinyablation.models.weight_copies import converted

    torch.set_num_threads(1)
    disable_progress_bar()
    entry = ModelEntry(
        id="random-llama",
        title="Llama, random weights",
        source=folder,
        family="llama",
        variant="natural",
        bos=False,
    )
    began = time.perf_counter()
    facts = describe(entry)
    if copy:
        copied = converted(facts.folder, facts.weight_hash, "float32", name=entry.id)
        facts = replace(facts, folder=copied)
    loaded = load_model(entry, device="cpu", dtype="float32", facts=facts)
    with torch.no_grad():
        logits = loaded.model(torch.arange(PROMPT)[None]).logits
    assert torch.isfinite(logits).all() and logits.dtype == torch.float32
    print(json.dumps({"seconds": round(time.perf_counter() - began, 2)}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
