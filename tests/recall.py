"""A model that recalls facts by parts that are set by hand. Not tests.

A GPT-2 of 2 heads a layer. Words have one code, in the part of the stream that says what a token is
and in the part that the unembedding reads. A head moves what is known of the subject to the end.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from fixtures.conditions import CONDITIONS
from tests.hand_set import POSITIONS, HandSet, flag
from tests.small_tokenizers import byte_level
from tests.trained_circuit import known_facts
from tinyablation.corpora.ordinals import SEQUENCES, successors
from tinyablation.heads import Head

CLUSTERS = 24
WORD, SIZE = 64, 96  # dimensions of a word's code, and of a head
PARTS = {"word": WORD, "said": WORD, "place": POSITIONS + 1, "subject": 2, "ordinal": 2, "first": 2}
SAME = torch.eye(WORD)
Row = dict[str, str]


def subject_of(row: Row) -> str:
    """The word that the corrupt prompt has another one for, with its space."""
    (word,) = {*row["clean"].split()} - {*row["corrupt"].split()}
    return f" {word}"


def facts() -> list[Row]:
    """Pairs of facts of the embedded corpus that have subjects of their own."""
    pairs: dict[str, list[Row]] = {}
    for row in known_facts():
        pairs.setdefault(row["cluster"], []).append(row)
    found: list[Row] = []
    seen = {f" {word}" for sequence in SEQUENCES for word in sequence.words}
    for rows in pairs.values():
        subjects = {subject_of(row) for row in rows}
        answers = {row["target"] for row in rows}
        if not seen & (subjects | answers) and len({row["cluster"] for row in found}) < CLUSTERS:
            found += rows
            seen |= subjects
    return found


def successions() -> Iterator[Row]:
    """Prompts of the pack's condition."""
    return CONDITIONS["successors"]()


class Recall(HandSet):
    """found: whether the stream has a part for what is looked up; sharp: length of unembeddings."""

    def __init__(self, layers: int, *, found: bool = False, sharp: float = 4.0) -> None:
        rows = [*facts(), *successions()]
        said = (row[side] for row in rows for side in ("clean", "corrupt", "target"))
        words = {word for text in said for word in re.findall(r" ?[^\W\d]+", text)}
        ordinals = {f" {word}" for sequence in SEQUENCES for word in sequence.words}
        parts = PARTS | ({"found": WORD} if found else {})
        tokenizer = byte_level(sorted(words | ordinals))
        super().__init__(tokenizer, parts, layers=layers, heads=2, size=SIZE + 32 * found)
        self.code = self.codes(len(tokenizer), "word")
        end = tokenizer.bos_token_id
        every = [id for id in range(len(tokenizer)) if id != end]
        self.embed("word", every, self.code[every])
        self.unembed("said", every, sharp * self.code[every])
        self.known = {subject_of(row): row["target"] for row in facts()}
        self.embed("subject", self.ids(self.known), flag())
        self.embed("ordinal", self.ids(sorted(ordinals)), flag())
        self.embed("first", [end], flag())
        self.steps = self.codes(POSITIONS, "place")
        self.place("place", self.steps)

    def mapped(self, pairs: Iterable[tuple[str, str]]) -> Tensor:
        """The matrix that makes of the code of each first word that of the second, or nearly so."""
        these, those = zip(*pairs, strict=True)
        return torch.linalg.pinv(self.code[self.ids(these)]) @ self.code[self.ids(those)]

    def answers(self) -> Tensor:
        return self.mapped(self.known.items())

    def look_for(self, head: Head, *kinds: str, latest: bool = False, first: float = 40.0) -> None:
        """Attend to words of these kinds; else to the first token, sought that much."""
        for kind in kinds:
            self.attend(head, None, kind, 100.0 * flag()[0])
        self.attend(head, None, "first", first * flag()[0])
        if latest:
            self.attend(head, None, "place", 4.0 * torch.arange(POSITIONS) @ self.steps)


def lookup(part: Literal["mlp", "attention"], layer: int) -> Recall:
    """4 layers: the subject is looked up in one, by a part of it; L3H0 moves what is found."""
    made = Recall(4, found=True)
    if part == "mlp":
        made.compute(layer, "word", "found", 0.5 * made.answers())
    else:
        made.look_for(Head(layer, 1), "subject", first=5.0)
        made.move(Head(layer, 1), "word", "found", 0.5 * made.answers())
    made.look_for(Head(3, 0), "subject", first=5.0)
    made.move(Head(3, 0), "found", "said", 0.3)
    return made


def suppressor(writes: float = -1.0, *, seeks: bool = True, answers: float = 0.0) -> Recall:
    """3 layers: L1H0 writes the answer, and the subject again; L2H0 takes the subject back.

    L2H0 looks for the token that is predicted (if it does not seek: for another, by a code turned
    at random), and writes so much of it, and of its answer.
    """
    made = Recall(3, sharp=0.8)  # blunt: the answer is not certain without L2H0
    made.compute(0, "word", "word", 0.1)  # what a token is, as the MLP of block 0 puts it
    made.look_for(Head(1, 0), "subject")
    made.move(Head(1, 0), "word", "said", 0.1 * made.answers() + 0.1 * SAME)
    turned = torch.linalg.qr(made.codes(WORD, "word").T)[0]
    made.attend(Head(2, 0), "said", "word", 6.0 * (SAME if seeks else turned))
    made.attend(Head(2, 0), None, "first", 10.0 * flag()[0])
    made.move(Head(2, 0), "word", "said", 0.2 * (writes * SAME + answers * made.answers()))
    return made


def successor(*, together: bool) -> Recall:
    """2 layers: L1H0 writes the answer of a subject, L1H1 the word after the last; or L1H0 both."""
    made = Recall(2)
    made.compute(0, "word", "word", 0.1)
    pairs = [pair for sequence in SEQUENCES for pair in successors(sequence).items()]
    following = made.mapped((f" {this}", f" {that}") for this, that in pairs)
    if together:
        made.look_for(Head(1, 0), "subject", "ordinal", latest=True)
        made.move(Head(1, 0), "word", "said", 0.2 * (made.answers() + following))
    else:
        made.look_for(Head(1, 0), "subject")
        made.move(Head(1, 0), "word", "said", 0.2 * made.answers())
        made.look_for(Head(1, 1), "ordinal", latest=True)
        made.move(Head(1, 1), "word", "said", 0.2 * following)
    return made
