"""Tokenizers made on the spot, for what the embedded one cannot show. Not tests."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"


def byte_level(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Bytes and the given words (with their leading space); any other word is its bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens = [token for word in words for token, _ in splitter.pre_tokenize_str(word)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*alphabet, END, *tokens]))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    core.pre_tokenizer = splitter
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END)


def sentencepiece_like(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """As SentencePiece does it: a space sign before the text, so that " Paris" alone has two."""
    pieces = sorted({f"▁{word}" for word in words})
    signs = sorted(set("".join(pieces)) | {"▁"})
    scores = [("<unk>", 0.0), *((piece, -3.0) for piece in pieces if len(piece) > 1)]
    scores += [(sign, -10.0) for sign in signs]
    core = Tokenizer(models.Unigram(list(dict(scores).items()), unk_id=0))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def merging_over_spaces() -> PreTrainedTokenizerFast:
    """Without word boundaries: "ab" is a, b, but in "ab c" the b goes with what follows."""
    vocabulary = {"a": 0, "b": 1, " ": 2, "c": 3, "b ": 4, "b c": 5}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("b", " "), ("b ", "c")]))
    return PreTrainedTokenizerFast(tokenizer_object=core)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write tokenizer.json and tokenizer_config.json, as a model folder has them."""
    tokenizer.save_pretrained(folder)
    return folder
