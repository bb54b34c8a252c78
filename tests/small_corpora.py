"""A few examples of the embedded corpora, in a folder of corpora of their own. Not tests."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tinyablation.corpora import (
    SPLITS,
    Corpus,
    Example,
    Split,
    load_corpus,
    load_split,
    write_corpus,
)
from tinyablation.shelves import adopt
from tinyablation.tokenisation import load_tokenizer

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
            halves[name] = tuple(range(len(examples), len(examples) + count))
            examples += [change(corpus.examples[row]) for row in split.rows[name][:count]]
        small = Corpus.of(condition, "tiny", examples)
        write_corpus(root / "tiny", small, Split(0, small.content_hash, halves))
    label(root)
    return root


def label(root: Path) -> None:
    """Write the manifest of root/tiny, as its corpora stand."""
    adopt(root / "tiny", load_tokenizer(str(EMBEDDED)))
