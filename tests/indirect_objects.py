"""A model whose circuit of indirect objects is set by hand. Not tests.

As in GPT-2 small (Wang et al. 2022, arXiv:2211.00593), of 4 layers and 3 heads:
    L0H0        duplicate token: at a word that stood before, it writes that a name did
    L1H0        S-inhibition: the word that asks looks for that name, and takes it down
    L2          name movers: it looks for names but the one taken down, and writes them
    L3H0, L3H1  backup name movers: the same, unless name movers have answered
    L3H2        negative name mover: looks for the name that is written, and writes against it
Heads whose key is nowhere attend to the first token.
"""

import re
from collections.abc import Iterator

from fixtures.conditions import CONDITIONS, NAMES
from tests.hand_set import POSITIONS, HandSet, flag
from tests.small_tokenizers import byte_level
from tinyablation.heads import Head

ASKS = " to"
CLUSTERS = 24  # of the condition's 40
DUPLICATE, INHIBITION, NEGATIVE = Head(0, 0), Head(1, 0), Head(3, 2)
MOVERS, BACKUPS = (Head(2, 0), Head(2, 1), Head(2, 2)), (Head(3, 0), Head(3, 1))
PARTS = {"word": 48, "said": 48, "inhibited": 48, "place": POSITIONS + 1}
FLAGS = ("named", "asks", "first", "again", "answered")


def asked() -> Iterator[dict[str, str]]:
    """Prompts of the pack's condition."""
    pairs = {f"pair {number}" for number in range(CLUSTERS)}
    return (row for row in CONDITIONS["ioi"]() if row["cluster"] in pairs)


def indirect_objects(*, movers: int = 3, heeded: float = 1.0, against: float = 1.0) -> HandSet:
    """The model.

    movers: how many name movers write, in all the same; heeded: how far backups heed that a name
    was written; against: how much the negative one writes.
    """
    names = [f" {name}" for name in NAMES]
    said = (row[side] for row in asked() for side in ("clean", "null"))
    words = sorted({word for text in said for word in re.findall(r" ?[^\W\d]+", text)})
    parts = {**PARTS, **dict.fromkeys(FLAGS, 2)}
    made = HandSet(byte_level([*words, *names]), parts, layers=4, heads=3, size=96)
    end = made.tokenizer.bos_token_id
    every = [id for id in range(len(made.tokenizer)) if id != end]
    codes = made.codes(len(every), "word")
    made.embed("word", every, codes)
    made.unembed("said", every, codes)
    made.embed("named", made.ids(names), flag())
    made.embed("asks", made.ids([ASKS]), flag())
    made.embed("first", [end], flag())
    made.place("place", made.codes(POSITIONS, "place"))

    made.attend(DUPLICATE, "word", "word", 4.0)
    made.attend(DUPLICATE, "place", "place", -5.0)  # not to itself
    made.attend(DUPLICATE, None, "first", 22.0 * flag()[0])
    made.move(DUPLICATE, "named", "again", 0.2)
    made.attend(INHIBITION, "asks", "again", 4.0)
    made.attend(INHIBITION, "asks", "first", 1.0)
    made.move(INHIBITION, "word", "inhibited", 0.2)
    for head in (*MOVERS[:movers], *BACKUPS):
        made.attend(head, "asks", "named", 3.0)
        made.attend(head, "asks", "first", 1.5)
        made.attend(head, "inhibited", "word", -2.5)
        if head in BACKUPS:
            made.attend(head, "answered", "named", -4.0 * heeded)
            made.attend(head, "answered", "first", 4.0 * heeded)
            made.move(head, "word", "said", 0.065)
        else:
            made.move(head, "word", "said", 0.3 / movers)
            made.move(head, "named", "answered", 0.3 / movers)
    made.attend(NEGATIVE, "said", "word", 3.0)
    made.attend(NEGATIVE, "asks", "first", 1.0)
    made.move(NEGATIVE, "word", "said", -0.1 * against)
    return made
