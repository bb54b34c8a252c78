"""From text to token ids, always with the answer in context.

Whether an answer is one token depends on its context: a SentencePiece tokenizer adds a space token
to a lone word, and a byte-level one may merge across the boundary. So a prompt and its answer are
tokenised together: the prompt's ids must be a prefix, and exactly one id must follow.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tinyablation.errors import TinyAblationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tinyablation.corpora.examples import Example

AnyTokenizer: TypeAlias = "PreTrainedTokenizerBase | Encoder"


class TokenisationError(TinyAblationError):
    """A tokenizer cannot be loaded, or an answer is not one token after its prompt."""


class Prompt(NamedTuple):
    """A prompt for the engine. `ids` include the BOS id if the model's policy adds one."""

    ids: tuple[int, ...]
    target: int
    foil: int


def load_tokenizer(source: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or a hub id; TokenisationError if it cannot be loaded."""
    # A missing path is reported at once: transformers takes seconds to import, and would query the
    # hub for it first.
    folder = Path(os.path.expanduser(source))
    is_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if not source.strip() or (is_path and not folder.is_dir()):
        raise TokenisationError(f"{source!r}: no such folder; name a folder or a hub id")
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else source, trust_remote_code=False
        )
    except Exception as error:  # foreign files: tokenizers raises bare Exception on bad JSON
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TokenisationError(f"{source}: no tokenizer can be loaded: {reason}") from error
    return tokenizer


class Encoder:
    """A tokenizer that splits each text once: a model's runs have most of their prompts in common.

    A text alone takes some 100 us and one of many 30; a run of 1,728 prompts has 10,000 with its
    answers.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self._ids: dict[str, tuple[int, ...]] = {}

    @property
    def unk_token_id(self) -> int | None:
        return self.tokenizer.unk_token_id

    def ids(self, text: str) -> tuple[int, ...]:
        """As `encode`."""
        if text not in self._ids:
            self._ids[text] = encode(self.tokenizer, text)
        return self._ids[text]

    def read(self, texts: Iterable[str]) -> None:
        """Split at once those of the texts that are new; `ids` of each is as without."""
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            found = self.tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
            self._ids.update(zip(new, map(tuple, found), strict=True))


def encode(tokenizer: AnyTokenizer, text: str) -> tuple[int, ...]:
    """The ids of `text` alone: no BOS, no EOS."""
    if isinstance(tokenizer, Encoder):
        return tokenizer.ids(text)
    # Without warnings: the engine itself checks whether a text is too long for the model.
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def answer_id(tokenizer: AnyTokenizer, prompt: str, answer: str) -> int:
    """The single id of `answer` after `prompt`; `answer` includes its leading space (" Paris").

    Raises TokenisationError if it is not one known token, or changes how the prompt is split.
    """
    return _id_after(tokenizer, encode(tokenizer, prompt), prompt, answer)


def _id_after(tokenizer: AnyTokenizer, before: tuple[int, ...], prompt: str, answer: str) -> int:
    answered = ids_after(tokenizer, before, prompt, answer)
    if len(answered) != 1:
        raise TokenisationError(f"{answer!r} is {len(answered)} tokens after {prompt!r}, not one")
    if answered[0] == tokenizer.unk_token_id:  # one id, but that of any word it does not know
        raise TokenisationError(f"{answer!r} is unknown to the tokenizer, after {prompt!r}")
    return answered[0]


def ids_after(
    tokenizer: AnyTokenizer, before: tuple[int, ...], prompt: str, answer: str
) -> tuple[int, ...]:
    """The ids, any number of them, that `answer` adds to `before`, the ids of `prompt`.

    Raises TokenisationError if the answer changes how the prompt before it is split.
    """
    after = encode(tokenizer, prompt + answer)
    if after[: len(before)] != before:
        raise TokenisationError(f"{answer!r} changes how the prompt before it is split: {prompt!r}")
    return after[len(before) :]


def is_one_token(tokenizer: AnyTokenizer, prompt: str, answer: str) -> bool:
    try:
        answer_id(tokenizer, prompt, answer)
    except TokenisationError:
        return False
    return True


def encode_prompt(
    tokenizer: AnyTokenizer, text: str, target: str, foil: str, bos: int | None
) -> Prompt:
    """The prompt with the ids of its answers; TokenisationError if both are the same token."""
    ids = encode(tokenizer, text)
    right, wrong = (_id_after(tokenizer, ids, text, answer) for answer in (target, foil))
    if right == wrong:
        raise TokenisationError(f"{target!r} and {foil!r} are the same token after {text!r}")
    return Prompt(ids if bos is None else (bos, *ids), right, wrong)


def encode_examples(
    tokenizer: AnyTokenizer,
    examples: Iterable["Example"],
    bos: int | None,
    *,
    side: str = "clean",
) -> Sequence[Prompt]:
    """Prompts of one side of the examples: "clean", "corrupt" or "null", in their order.

    Target and foil are those of the clean side throughout, so the LD of the corrupt side should be
    negative. `bos`: the id to prepend, or None.
    """
    return [
        encode_prompt(tokenizer, getattr(row, side), row.target, row.foil, bos) for row in examples
    ]
