"""A model whose two routes of copying are set by hand: by two heads, or by one. Not tests.

A GPT-2 of 2 layers and 2 heads, as in induction_circuit.py, but for a dimension for each token as
the one before the last. Words are a first piece and a second, or one piece.
    L0H0, L0H1  write which token stood one back, and two back
    L1H0        attends to where its own token stood one back; it writes the token there
    L1H1        attends to where its own token stood two back: the end of the word that comes next;
                of a subject it writes the answer
If one head does both, L1H0 attends to either and writes either, and L1H1 writes nothing. Weights
that write are a little off, so that no figure is the same for all prompts.
"""

import string
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

from fixtures.conditions import WORDS
from tests.blank_gpt2 import blank_gpt2, matrices, off
from tests.induction_circuit import SHARPNESS
from tests.small_tokenizers import END
from tinyablation.heads import Head
from tinyablation.statistics.intervals import generator

# Words of the passages that RepeatedWords draws from, cut; no two share a piece.
CUT = (
    *("gover-nment", "sys-tem", "eco-nomy", "pub-lic", "secu-rity", "coun-try", "neces-sary"),
    *("atten-tion", "for-eign", "impor-tant", "trea-ty", "hea-lth", "pol-icy", "citi-zens"),
)
SUBJECTS, ANSWERS, REST = WORDS[:24], WORDS[24:48], WORDS[48:96]
POSITIONS = 64
EITHER = 0.98  # of the match one back, that of one two back, where one head does both: 60 to 40
OFF = 0.02
Row = dict[str, str]


def facts() -> Iterator[Row]:
    """A word, any other, a subject, the word again: the answer of the subject."""
    rng = generator(0, "two routes: facts")
    for at in range(0, len(SUBJECTS), 2):
        for turn in range(4):
            cue, between = (str(word) for word in rng.choice(REST, 2, replace=False))
            for this, that in ((at, at + 1), (at + 1, at)):
                clean, corrupt = (f"a {cue} {between} {SUBJECTS[n]} {cue}" for n in (this, that))
                yield {
                    "clean": clean,
                    "corrupt": corrupt,
                    "target": f" {ANSWERS[this]}",
                    "foil": f" {ANSWERS[that]}",
                    "cluster": f"subjects {at} {turn}",
                    "fact": f"{SUBJECTS[this]} {turn}",
                }


def repeats() -> Iterator[Row]:
    """Eight words, then one of them again: the word that followed it."""
    rng = generator(0, "two routes: repeats")
    for number in range(48):
        words = [str(word) for word in rng.choice(REST, 8, replace=False)]
        for this, that in ((1, 4), (4, 1)):
            clean, corrupt = (" ".join(["a", *words, words[at]]) for at in (this, that))
            yield {
                "clean": clean,
                "corrupt": corrupt,
                "target": f" {words[this + 1]}",
                "foil": f" {words[that + 1]}",
                "cluster": f"list {number}",
                "fact": f"{this} of {number}",
            }


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Words after a space, pieces of CUT, and letters: the longest that fits."""
    pieces = [part for word in CUT for part in word.split("-")]
    words = [f"Ġ{word}" for word in (*SUBJECTS, *ANSWERS, *REST, *pieces[::2])]
    known = dict.fromkeys([END, "Ġ", *string.ascii_lowercase, *words, *pieces[1::2]])
    vocabulary = {token: id for id, token in enumerate(known)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token=END, continuing_subword_prefix=""))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=END, eos_token=END, unk_token=END
    )


def save_two_routes(folder: Path, *, together: bool) -> None:
    """together: whether one head does both."""
    made = tokenizer()
    n = len(made)
    # Where the dimensions begin: of tokens, of positions, of the token one back and two back.
    token, position, back = 0, n, (n + POSITIONS, 2 * n + POSITIONS)
    size = -(-(3 * n + POSITIONS) // 2)
    model = blank_gpt2(made, width=2 * size, layers=2, positions=POSITIONS)
    one, places = torch.eye(n), torch.eye(POSITIONS)
    answers = torch.zeros(n, n)  # [subject, answer]
    for subject, answer in zip(SUBJECTS, ANSWERS, strict=True):
        row, column = (made.convert_tokens_to_ids(f"Ġ{word}") for word in (subject, answer))
        answers[row, column] = 1.0
    torch.manual_seed(0)

    model.transformer.wte.weight[:, token : token + n] = one
    model.transformer.wpe.weight[:, position : position + POSITIONS] = places
    for head in (Head(layer, number) for layer in range(2) for number in range(2)):
        own = matrices(model, head)
        own.value[token : token + n, :n] = one
        if head.layer == 0:
            steps = head.head + 1  # the query of a position is the key of so many before
            own.key[position : position + POSITIONS, :POSITIONS] = places
            own.query[position + steps : position + POSITIONS, : POSITIONS - steps] = (
                SHARPNESS * places[steps:, steps:]
            )
            at = back[head.head]
            own.output[:n, at : at + n] = one / 5
            continue
        own.query[token : token + n, :n] = SHARPNESS * one
        matched = {back[head.head]: 1.0}
        written = answers if head.head else one
        if together:
            matched = {back[0]: 1.0, back[1]: EITHER} if head.head == 0 else matched
            written = torch.zeros_like(one) if head.head else one + 2 * answers
        for begin, weight in matched.items():
            own.key[begin : begin + n, :n] = weight * one
        own.output[:n, token : token + n] = off(written, OFF)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
