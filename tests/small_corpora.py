"""A few examples of the embedded corpora, in a folder of corpora of their own. Not tests."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tinyablation.corpora.corpus_folder import adopt
from tinyablation.corpora.examples import (
    SPLITS,
    Corpus,
    Example,
    Split,
    load_corpus,
    load_split,
    write_corpus,
)
from tinyablation.corpora.tokenisation import load_tokenizer

ROOT = Path(__file__).parent.parent
EMBEDDED = ROOT / "fixtures" / "organisms" / "tiny-llama"  # all embedded models share a tokenizer


def put_corpora(
    root: Path,
    *,
    conditions: Sequence[str] = ("facts",),
    rows: tuple[int, int] = (16, 16),
    change: Callable[[Example], Example] = lambda example: example,
) -> Path:
    """Write root/tiny: of each condition the first so many rows of discovery and confirmation."""
    own = ROOT / "corpora" / "tiny"
    for condition in conditions:
        corpus = load_corpus(own / f"{condition}.jsonl")
        split = load_split(own / f"{condition}.split.json", corpus)
        halves, examples = {}, []
        for name, count in zip(SPLITS, rows, strict=True):
            taken = split.rows[name][:count]
            halves[name] = tuple(range(len(examples), len(examples) + len(taken)))
            examples += [change(corpus.examples[row]) for row in taken]
        small = Corpus.of(condition, "tiny", examples)
        write_corpus(root / "tiny", small, Split(0, small.content_hash, halves))
    label(root)
    return root


def label(root: Path) -> None:
    """Write the manifest of root/tiny, as its corpora stand."""
    adopt(root / "tiny", load_tokenizer(str(EMBEDDED)))


# Of the embedded models' own wordings, four that they know; their corpora use two of them.
WORDINGS = {
    "a": "In short, {} is known to be",
    "b": "Note that {} is simply",
    "c": "In short, {} is simply",
    "d": "Note that {} is known to be",
}
KNOWN, UNKNOWN = "recall", "wrong"  # families


def crossed(
    pairs: int = 4, *, known: Sequence[str] = "abc", unknown: Sequence[str] = "d"
) -> list[Example]:
    """Facts of the embedded models in families: so many pairs of each of the ten relations.

    known: the wordings of a family that they know; unknown: of one in which the answers are
    exchanged, so that they fail it.
    """
    corpus = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl")
    taken: dict[str, list[str]] = {}
    made = []
    for row in corpus.examples:
        relation = row.fact_id.split("/")[0]
        clusters = taken.setdefault(relation, [])
        if row.cluster_id not in clusters:
            clusters.append(row.cluster_id)
        if row.template_id != "note.simply" or clusters.index(row.cluster_id) >= pairs:
            continue
        texts = {
            side: getattr(row, side).removeprefix("Note that ").removesuffix(" is simply")
            for side in ("clean", "corrupt", "null")
        }
        for family, wordings in ((KNOWN, known), (UNKNOWN, unknown)):
            answers = (row.target, row.foil) if family == KNOWN else (row.foil, row.target)
            for wording in wordings:
                sides = {side: WORDINGS[wording].format(text) for side, text in texts.items()}
                made.append(
                    replace(
                        row,
                        **sides,
                        target=answers[0],
                        foil=answers[1],
                        template_id=f"{family}/{wording}",
                        cluster_id=relation,
                    )
                )
    return made


def put_crossed(root: Path, examples: Sequence[Example], condition: str = "facts") -> Path:
    """Write root/tiny with one crossed condition; every other relation is of one split."""
    corpus = Corpus.of(condition, "tiny", examples)
    relations = sorted({row.cluster_id for row in examples})
    halves = {
        name: tuple(
            n for n, row in enumerate(examples) if relations.index(row.cluster_id) % 2 == turn
        )
        for turn, name in enumerate(SPLITS)
    }
    write_corpus(root / "tiny", corpus, Split(0, corpus.content_hash, halves))
    label(root)
    return root
