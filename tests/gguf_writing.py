"""GGUF files written on the spot, from a Llama's Hugging Face folder. Not tests."""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    folder: Path,
    path: Path,
    kind: Kind = Kind.F16,
    *,
    file_type: int | None = gguf.LlamaFileType.MOSTLY_F16,
    architecture: str = "llama",
    name: str = "A Tiny Llama",
    without: str = "nothing",
) -> Path:
    """The model of a folder as llama.cpp writes it: matrices in `kind` where their rows fill its
    blocks, else in F16; vectors in F32. without: a tensor that is left out.
    """
    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    heads, width = config["num_attention_heads"], config["hidden_size"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_merges([merge_of(vocabulary)])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    for own, tensor in sorted(load_file(folder / "model.safetensors").items()):
        found = renamed(own)
        if found == without:
            continue
        if "attn_q." in found or "attn_k." in found:  # llama.cpp turns pairs, transformers halves
            parts = tensor.reshape(heads, 2, width // heads // 2, width)
            tensor = parts.swapaxes(1, 2).reshape(tensor.shape)
        own_kind = Kind.F32 if tensor.ndim == 1 else kind
        if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[own_kind][0]:
            own_kind = Kind.F16
        data = gguf.quants.quantize(np.ascontiguousarray(tensor, np.float32), own_kind)
        writer.add_tensor(found, data, raw_dtype=own_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merge_of(vocabulary: dict[str, int]) -> str:
    """A merge of two tokens into a third: a reader wants at least one."""
    return next(
        f"{token[:at]} {token[at:]}"
        for token in vocabulary
        for at in range(1, len(token))
        if token[:at] in vocabulary and token[at:] in vocabulary
    )


def renamed(own: str) -> str:
    """What llama.cpp calls a tensor of transformers' Llama."""
    stem, _, last = own.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{last}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.{last}"
