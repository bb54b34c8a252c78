"""What is known of a model from its files alone."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model, from its files alone.

    folder: where the files are; commit: their commit on the hub (None for a local folder); derived:
    how the weights were made if they are not as published ("dequantised from ..."). context and
    sliding_window are in tokens, weight_bytes is the size of the weight files. weight_hash: sha256
    of the weight file (as sha256sum prints it) or, for shards, of their names and hashes;
    config_hash: see checkpoint.config_hash; tokenizer_hash: see tokenizer_state.tokenizer_hash.
    bos: whether prompts begin with a BOS.
    """

    architecture: str
    model_type: str
    n_layers: int
    n_heads: int
    d_model: int
    vocab_size: int
    context: int
    sliding_window: int | None
    weight_hash: str
    config_hash: str
    tokenizer_hash: str
    weight_bytes: int
    bos: bool
    # The location of the files is not a property of the model.
    folder: Path = field(compare=False)
    commit: str | None = field(compare=False, default=None)
    derived: str = field(compare=False, default="")
