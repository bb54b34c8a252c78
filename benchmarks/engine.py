"""All-heads zero-ablation sweep: the engine against one hooked TransformerBridge run per head.

Run: python benchmarks/engine.py [--prompts 32] [--layers 12]
"""

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GOAL = 4.0
SEED = 0
VOCABULARY = 50257


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32, help="distinct prompts (default 32)")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (default 12)")
    arguments = parser.parse_args()

    import numpy as np
    import torch
    import transformers

    from tinyablation.engine import ENGINE_VERSION, Engine
    from tinyablation.interventions import AblateHeads
    from tinyablation.tokenisation import Prompt

    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    prompts = []
    for _ in range(arguments.prompts):
        ids = tuple(int(i) for i in rng.integers(0, VOCABULARY, rng.integers(6, 15)))
        target, foil = (int(i) for i in rng.choice(VOCABULARY, 2, replace=False))
        prompts.append(Prompt(ids, target, foil))
    heads = [(layer, head) for layer in range(arguments.layers) for head in range(12)]

    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(random_model(Path(folder), arguments.layers))
        begin, cpu_begin = time.perf_counter(), time.process_time()
        frame = engine.measure(prompts, [AblateHeads((head,)) for head in heads], progress=True)
        engine_s, engine_cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
        ours = frame.logit_diff.to_numpy().reshape(len(heads) + 1, len(prompts))
        begin, cpu_begin = time.perf_counter(), time.process_time()
        # The bridge wraps the model in place, so the engine had its turn first.
        theirs = plain_loop(engine.loaded, prompts, heads)
        plain_s, plain_cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin

    result = {
        "benchmark": "engine",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "heads": len(heads),
        "prompts": len(prompts),
        "tokens": [min(len(p.ids) for p in prompts), max(len(p.ids) for p in prompts)],
        "plain_s": round(plain_s, 3),
        "engine_s": round(engine_s, 3),
        "ratio": round(plain_s / engine_s, 3),
        # With other work on the machine, CPU time is the steadier of the two.
        "plain_cpu_s": round(plain_cpu_s, 3),
        "engine_cpu_s": round(engine_cpu_s, 3),
        "ratio_cpu": round(plain_cpu_s / engine_cpu_s, 3),
        "goal": GOAL,
        "largest_difference_in_logit_diff": float(np.abs(ours - theirs).max()),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "transformer_lens": version("transformer-lens"),
            "engine": ENGINE_VERSION,
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 2),
            "threads": torch.get_num_threads(),
        },
    }
    path = Path(__file__).parent / "results" / "engine.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    print(
        f"{result['ratio']}x, in CPU time {result['ratio_cpu']}x (goal {GOAL}x), written to {path}"
    )


def random_model(folder: Path, n_layers: int) -> Any:
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
        n_heads=12,
        d_model=768,
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


def plain_loop(loaded: Any, prompts: list[Any], heads: list[tuple[int, int]]) -> Any:
    """Logit differences [1 + heads, prompts]: one bridge run a head on the padded batch."""
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
    ids = torch.tensor([prompt.ids + (0,) * (longest - len(prompt.ids)) for prompt in prompts])
    row = torch.arange(len(prompts))
    last = torch.tensor([len(prompt.ids) - 1 for prompt in prompts])
    targets = torch.tensor([prompt.target for prompt in prompts])
    foils = torch.tensor([prompt.foil for prompt in prompts])
    found = []
    with torch.no_grad():
        for head in tqdm([None, *heads], desc="plain loop", unit="run"):
            hooks = []
            if head is not None:

                def zero(z: Any, hook: Any, index: int = head[1]) -> Any:
                    z[:, :, index] = 0
                    return z

                hooks = [(f"blocks.{head[0]}.attn.hook_z", zero)]
            logits = bridge.run_with_hooks(
                ids, fwd_hooks=hooks, prepend_bos=False, return_type="logits"
            )[row, last]
            found.append((logits[row, targets] - logits[row, foils]).double().numpy())
    return np.stack(found)


if __name__ == "__main__":
    main()
