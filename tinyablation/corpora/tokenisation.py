"""Text to token ids, always with the answer in its place.

Whether an answer is one token can only be said in context: a SentencePiece tokenizer gives a lone
word a spare space token, and a byte-level one may merge across the boundary. So a prompt and its
answer are tokenised together: the prompt's ids must be a prefix, and exactly one id may follow.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyablation.corpora.examples import Example


class TokenisationError(TinyAblationError):
    """No tokenizer can be had, or an answer is not one token after its prompt; both are named."""


class Prompt(NamedTuple):
    """What the engine measures. `ids` include the BOS id where the model's policy says so."""

    ids: tuple[int, ...]
    target: int
    foil: int


def load_tokenizer(source: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or a hub id; TokenisationError says what could not be had."""
    # A path is said to be missing at once: transformers takes seconds to import, and would ask the
    # hub for it first.
    folder = Path(source).expanduser()
    is_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if not source.strip() or (is_path and not folder.is_dir()):
        raise TokenisationError(f"{source!r}: no such folder; name a folder or a hub id")
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else source, trust_remote_code=False
        )
    except Exception as error:  # files of others: tokenizers raises bare Exception on bad JSON
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TokenisationError(f"{source}: no tokenizer can be loaded: {reason}") from error
    return tokenizer


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    """The ids of `text` alone: no BOS, no EOS."""
    # Quietly: whether a text is too long for a model is for those to say who measure it.
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def answer_id(tokenizer: "PreTrainedTokenizerBase", prompt: str, answer: str) -> int:
    """The one id of `answer` after `prompt`; TokenisationError when it is not one, or moves others.

    `answer` carries its own leading space, as in " Paris".
    """
    return _id_after(tokenizer, encode(tokenizer, prompt), prompt, answer)


def _id_after(
    tokenizer: "PreTrainedTokenizerBase", before: tuple[int, ...], prompt: str, answer: str
) -> int:
    answered = ids_after(tokenizer, before, prompt, answer)
    if len(answered) != 1:
        raise TokenisationError(f"{answer!r} is {len(answered)} tokens after {prompt!r}, not one")
    if answered[0] == tokenizer.unk_token_id:  # one id, but that of any word it does not know
        raise TokenisationError(f"{answer!r} is unknown to the tokenizer, after {prompt!r}")
    return answered[0]


def ids_after(
    tokenizer: "PreTrainedTokenizerBase", before: tuple[int, ...], prompt: str, answer: str
) -> tuple[int, ...]:
    """The ids that `answer` adds to those of `prompt`, which are `before`; none or many may be.

    TokenisationError when the answer changes how the prompt before it is split.
    """
    after = encode(tokenizer, prompt + answer)
    if after[: len(before)] != before:
        raise TokenisationError(f"{answer!r} changes how the prompt before it is split: {prompt!r}")
    return after[len(before) :]


def is_one_token(tokenizer: "PreTrainedTokenizerBase", prompt: str, answer: str) -> bool:
    try:
        answer_id(tokenizer, prompt, answer)
    except TokenisationError:
        return False
    return True


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", text: str, target: str, foil: str, bos: int | None
) -> Prompt:
    """The prompt with the ids of its answers; TokenisationError when they cannot be told apart."""
    ids = encode(tokenizer, text)
    right, wrong = (_id_after(tokenizer, ids, text, answer) for answer in (target, foil))
    if right == wrong:
        raise TokenisationError(f"{target!r} and {foil!r} are the same token after {text!r}")
    return Prompt(ids if bos is None else (bos, *ids), right, wrong)


def encode_examples(
    tokenizer: "PreTrainedTokenizerBase",
    examples: Iterable["Example"],
    bos: int | None,
    *,
    side: str = "clean",
) -> Sequence[Prompt]:
    """Prompts of one side of the examples: "clean", "corrupt" or "null", in their order.

    Target and foil stay what they are on the clean side, so that LD of the corrupt side should be
    negative. `bos` is the id to put in front, or None.
    """
    return [
        encode_prompt(tokenizer, getattr(row, side), row.target, row.foil, bos) for row in examples
    ]
