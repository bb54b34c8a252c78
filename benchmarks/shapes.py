"""Models of given sizes with random weights, and what zeroing their heads must cost at least."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tinyablation.models.loading import LoadedModel

Head = tuple[int, int]
SEED = 0


class Shape(NamedTuple):
    """A model's sizes; gated: whether its MLP is of three matrices rather than two."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_model: int
    d_mlp: int
    vocabulary: int
    gated: bool


GPT2_SMALL = Shape(12, 12, 12, 768, 3072, 50257, False)
MISTRAL_7B = Shape(32, 32, 8, 4096, 14336, 32000, True)


def random_model(shape: Shape, device: str = "cpu", dtype: Any = None) -> "LoadedModel":
    """A GPT-2, or a Mistral where the MLP is gated, drawn on its device; saved nowhere.

    dtype: of torch, float32 if none. Every matrix is normal with a deviation of .02, as
    transformers draws them.
    """
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig

    from tinyablation.models.loading import LoadedModel, ModelFacts
    from tinyablation.models.registry import ModelEntry

    if shape.gated:
        config: Any = MistralConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_mlp,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_key_value_heads,
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=0,
        )
    else:
        config = GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=1024,
            n_embd=shape.d_model,
            n_inner=shape.d_mlp,
            n_layer=shape.n_layers,
            n_head=shape.n_heads,
            bos_token_id=0,
            eos_token_id=0,
        )
    dtype = dtype or torch.float32
    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    model = model.eval().requires_grad_(False)
    folder = Path("nowhere")
    entry = ModelEntry(
        id="random-7b-shape" if shape.gated else "random-gpt2-small",
        title="random weights",
        source=folder,
        family="mistral" if shape.gated else "gpt2",
        variant="plain",
        bos=False,
    )
    facts = ModelFacts(
        architecture=type(model).__name__,
        model_type=config.model_type,
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        d_model=shape.d_model,
        vocab_size=shape.vocabulary,
        context=4096 if shape.gated else 1024,
        sliding_window=getattr(config, "sliding_window", None),
        weight_hash="random",
        config_hash="none",
        tokenizer_hash="none",
        weight_bytes=0,
        bos=False,
        folder=folder,
    )
    tokenizer: Any = None
    return LoadedModel(entry, facts, model, tokenizer, None, torch.device(device), dtype)


def necessary_operations(
    prompts: Sequence[tuple[int, ...]], heads: Sequence[Head], shape: Shape
) -> dict[str, int]:
    """Multiplications and additions of matrix products that no exact way can leave out.

    Every distinct prefix once; of the layer of the head its MLP; of the last layer keys and values
    everywhere and the rest where prompts end; the vocabulary for every prompt. Attention counts the
    tokens that are looked at. Clean passes, norms and activation functions count nothing.
    """
    from tinyablation.engine.prefix_trie import trie

    nodes = trie(list(dict.fromkeys(prompts)))
    at_ends = list(set(nodes.ends.tolist()))
    n, ends = len(nodes.tokens), len(at_ends)
    d_model, d_head = shape.d_model, shape.d_model // shape.n_heads
    looks = 4 * d_model * int((nodes.positions + 1).sum())
    end_looks = 4 * d_model * int((nodes.positions[at_ends] + 1).sum())
    mlp = (3 if shape.gated else 2) * 2 * d_model * shape.d_mlp
    keys_and_values = 2 * 2 * d_model * d_head * shape.n_key_value_heads
    whole = mlp + keys_and_values + 2 * 2 * d_model**2  # queries and outputs
    last = shape.n_layers - 1
    total = 0
    for layer, _ in heads:
        total += (2 * d_head * d_model + mlp) * (ends if layer == last else n)
        if layer < last:
            total += (last - 1 - layer) * (whole * n + looks)
            total += keys_and_values * n + (whole - keys_and_values) * ends + end_looks
        total += 2 * d_model * shape.vocabulary * ends
    return {"flop": total, "nodes": n}
