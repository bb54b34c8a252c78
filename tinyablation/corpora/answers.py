"""Answers of several tokens, as a tokenizer splits them after their prompts."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.corpora.tokenisation import AnyTokenizer, Encoder, TokenisationError, ids_after

if TYPE_CHECKING:
    from tinyablation.corpora.examples import Example

Ids = tuple[int, ...]


class Span(NamedTuple):
    """A prompt and its two answers as ids. `ids` include the BOS if the model's policy adds one."""

    ids: Ids
    target: Ids
    foil: Ids


def encode_spans(
    tokenizer: AnyTokenizer,
    examples: Iterable["Example"],
    bos: int | None,
    side: str = "clean",
) -> list[Span]:
    """Spans of one side of the examples, in their order; `bos` is prepended unless None.

    Raises TokenisationError for an answer that changes how its prompt is split, adds no token, or
    contains a word unknown to the tokenizer. Also if one answer begins with the tokens of the
    other: the shorter is then never less probable, whatever the model knows.
    """
    rows, found = list(examples), []
    encoder = tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
    encoder.read(texts_of(rows, side))
    for row in rows:
        text = getattr(row, side)
        ids = encoder.ids(text)
        target, foil = (_answer(encoder, ids, text, answer) for answer in (row.target, row.foil))
        short = min(len(target), len(foil))
        if target[:short] == foil[:short]:
            raise TokenisationError(
                f"of {row.target!r} and {row.foil!r} one begins with the tokens of the other, "
                f"after {text!r}"
            )
        found.append(Span(ids if bos is None else (bos, *ids), target, foil))
    return found


def texts_of(examples: Iterable["Example"], side: str) -> Iterator[str]:
    """The texts that encode_spans has split."""
    for row in examples:
        text = getattr(row, side)
        yield from (text, text + row.target, text + row.foil)


def _answer(tokenizer: AnyTokenizer, before: Ids, prompt: str, answer: str) -> Ids:
    ids = ids_after(tokenizer, before, prompt, answer)
    if not ids:
        raise TokenisationError(f"{answer!r} adds no token after {prompt!r}")
    if tokenizer.unk_token_id in ids:
        raise TokenisationError(f"{answer!r} is unknown to the tokenizer, after {prompt!r}")
    return ids


def is_multi_token(
    tokenizer: AnyTokenizer, examples: Iterable["Example"], side: str = "clean"
) -> bool:
    """Whether any answer has more than one token; raises TokenisationError as encode_spans does."""
    spans = encode_spans(tokenizer, examples, None, side)
    return any(len(answer) > 1 for span in spans for answer in (span.target, span.foil))
