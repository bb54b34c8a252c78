"""A user's own condition: a file of JSON lines, given to a session under a name.

    {"clean": "When Mary and John went out, John gave a drink to", "target": " Mary",
     "corrupt": "When Mary and John went out, Mary gave a drink to", "foil": " John"}

The fields of OPTIONAL may be added; `aligned` is always computed. Everything that is an error in a
corpus of this project, and more, is listed in `defects`: users who measure with such a file accept
them, and the records say so. An unreadable line raises CorpusError with file, line and field.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.defects import SEVERAL, Defect, reader_of, text_defects, token_defects
from tinyablation.corpora.examples import (
    CONFIRMATION,
    DISCOVERY,
    SPLITS,
    Corpus,
    CorpusError,
    Example,
    Split,
    parse_json,
    read_lines,
    refuse_unknown,
)
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.files.hashes import text_sha256
from tinyablation.records.conditions import ALL_CONDITIONS, NAMES, OWN_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REQUIRED = ("clean", "corrupt", "target", "foil")
# field -> its name in an Example; both names are accepted.
OPTIONAL: Mapping[str, str] = {
    "null": "null",
    "cluster": "cluster_id",
    "template": "template_id",
    "fact": "fact_id",
    "cell": "cell",
}
FAMILY = "family"  # in an Example it is the first part of the template_id
SPLIT = "split"
_COMPUTED = "aligned"
_KNOWN = (*REQUIRED, *OPTIONAL, FAMILY, SPLIT, *OPTIONAL.values(), _COMPUTED)


@dataclass(frozen=True)
class OwnCondition:
    """A condition as in its file: examples, the half each one names ("" if none), and defects.

    `aligned` of the examples is only a placeholder, because it depends on the tokenizer. least: how
    many clusters a tokenizer must leave whose answers it does not cut into pieces (but for digits);
    0: a user's condition is measured with all that can be told apart.
    """

    name: str
    path: Path
    examples: tuple[Example, ...]
    halves: tuple[str, ...]
    defects: tuple[Defect, ...]
    least: int = 0

    @property
    def content_hash(self) -> str:
        """sha256 of the examples and their halves."""
        text = repr([(*vars(row).values(), half) for row, half in self._rows()])
        return text_sha256(text)

    @property
    def n_clusters(self) -> int:
        return len({row.cluster_id for row in self.examples})

    def about(self, seed: int) -> str:
        """A description of the corpus in one line, without folders."""
        half = "given by the file" if self.halves[0] else f"drawn by seed {seed}"
        return (
            f"{self.path.name} ({len(self.examples)} examples, {self.n_clusters} clusters; split "
            f"{half}; sha256 {self.content_hash[:12]})"
        )

    def _rows(self) -> Iterator[tuple[Example, str]]:
        return zip(self.examples, self.halves, strict=True)

    def for_tokenizer(
        self, tokenizer: "PreTrainedTokenizerBase", name: str, seed: int
    ) -> tuple[Corpus, Split, tuple[Defect, ...]]:
        """Corpus, split and all defects for one tokenizer, called `name`.

        Examples whose answers it encodes alike, or does not know, are left out. Raises CorpusError
        if no example, or no cluster of one half, remains; TooFewPrompts if fewer than `least` do.
        """
        kept: list[Example] = []
        rows: dict[str, list[int]] = {half: [] for half in SPLITS}
        found: list[Defect] = []
        # Over all examples, so that a prompt is in the same half for every tokenizer.
        halves = self.halves if all(self.halves) else _drawn(self.path, self.examples, seed)
        encoder = reader_of(tokenizer, self.examples)
        for line, (row, half) in enumerate(zip(self.examples, halves, strict=True), start=1):
            aligned, faults = token_defects(encoder, row)
            found += (Defect(kind, line, what) for kind, what in faults)
            # A word that is cut into pieces is no word to the model; a number may be its digits.
            cut = SEVERAL in dict(faults) and not row.target.strip().isdigit()
            if aligned is not None and not (self.least and cut):
                rows[half].append(len(kept))
                kept.append(replace(row, aligned=aligned))
        left = len({row.cluster_id for row in kept})
        if left < self.least:
            why = (
                f"the tokenizer has words for {left} of {self.n_clusters} clusters, {self.least} "
                "are needed"
            )
            raise TooFewPrompts(f"{name}, {self.name}: {why}", reason=why)
        for half in SPLITS:
            if not rows[half]:
                why = f"; {found[0].what}" if found else ""
                raise CorpusError(f"{self.path}: no example of {half} is of use for {name}{why}")
        defects = (*self.defects, *found)
        lines = [f"{self.path.name}, line {each.line}: {each.what}" for each in defects]
        corpus = Corpus.of(self.name, name, kept, lines)
        split = {half: tuple(rows[half]) for half in SPLITS}
        return corpus, Split(seed, corpus.content_hash, split), defects


def check_name(name: str) -> None:
    """Raise CorpusError if this cannot be the name of a user's condition."""
    if name in (*NAMES, ALL_CONDITIONS):
        raise CorpusError(f"the name {name!r} is taken by the project; give the file another")
    if not OWN_NAME.fullmatch(name):
        raise CorpusError(
            f"{name!r} cannot name a condition; use lower-case letters, digits and _, starting "
            "with a letter, such as ioi"
        )


# --- reading -------------------------------------------------------------------------------------


def read_own(name: str, path: Path) -> OwnCondition:
    """Read the file of a condition; CorpusError names the file, the line and the wrong field."""
    check_name(name)
    return own_of(name, path, read_rows(path))


def read_rows(path: Path) -> list[Any]:
    """The JSON values of a file, one a line; CorpusError names the file and the line."""
    if os.path.isdir(path):
        raise CorpusError(f"{path}: a folder; give a file of JSON lines")
    if not os.path.exists(path):
        raise CorpusError(f"{path}: no such file; give one of JSON lines")
    values = []
    for number, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            raise CorpusError(f"{path}, line {number}: empty; remove it")
        try:
            values.append(parse_json(text))
        except JSONDecodeError as error:
            raise CorpusError(f"{path}, line {number}: not JSON ({error.msg})") from None
        except CorpusError as error:
            raise CorpusError(f"{path}, line {number}: {error}") from None
    return values


def own_of(
    name: str, path: Path, values: Iterable[Any], *, required: Sequence[str] = REQUIRED
) -> OwnCondition:
    """The condition that these rows make, each as the object of a line of its file.

    path: their place in messages. required: the fields that a row must have. Raises CorpusError,
    which names path, line and field.
    """
    rows = []
    for number, value in enumerate(values, start=1):
        try:
            rows.append(_row(value, required))
        except CorpusError as error:
            raise CorpusError(f"{path}, line {number}: {error}") from None
    if not rows:
        raise CorpusError(f"{path}: no examples in it")
    halves = tuple(half for _, half in rows)
    if "" in halves and any(halves):
        line = halves.index("") + 1
        raise CorpusError(
            f"{path}, line {line}: field {SPLIT!r} is missing, but other lines have it; give it in "
            "all lines, or in none to have it drawn"
        )
    examples = clustered([row for row, _ in rows])
    if all(halves):
        _require_apart(path, list(zip(examples, halves, strict=True)))
    return OwnCondition(name, path, examples, halves, tuple(text_defects(examples)))


def _row(data: Any, required: Sequence[str]) -> tuple[Example, str]:
    """An example and the half it names; its ids are "" if the file has none."""
    if not isinstance(data, dict):
        raise CorpusError(f"must be a JSON object, not {type(data).__name__}")
    refuse_unknown(data, _KNOWN)
    for name in required:
        if name not in data:
            raise CorpusError(f"field {name!r} is missing")
        if data[name] == "":
            raise CorpusError(f"field {name!r} is empty")
    for name, value in data.items():
        is_left_open = value is None and name not in required
        if not (isinstance(value, str) or is_left_open or name == _COMPUTED):
            raise CorpusError(f"field {name!r}: {value!r} is not text")
    given = {name: data.get(name) or "" for name in REQUIRED}
    for short, long in OPTIONAL.items():
        if short != long and short in data and long in data:
            raise CorpusError(f"fields {short!r} and {long!r} are the same; give one of them")
        given[long] = data.get(short, data.get(long)) or ""
    # As everywhere, the part of a template_id before "/" is the family.
    wording = given["template_id"].replace("/", ".")
    family = data.get(FAMILY) or ""
    if "/" in family:
        raise CorpusError(f"field {FAMILY!r}: {family!r} holds '/'; leave it out")
    given["template_id"] = f"{family}/{wording or 'asked'}" if family else wording
    half = data.get(SPLIT) or ""
    if half not in ("", *SPLITS):
        raise CorpusError(
            f"field {SPLIT!r}: {half!r} is neither {DISCOVERY!r} nor {CONFIRMATION!r}"
        )
    # An Example needs a cluster; lines without one get theirs after all lines are read.
    row = Example(**{**given, "cluster_id": given["cluster_id"] or UNNAMED}, aligned=False)
    return row, half


UNNAMED = "\0"  # the cluster of a row that names none, until it gets one


def clustered(rows: Sequence[Example]) -> tuple[Example, ...]:
    """The rows with their missing ids filled in: clusters called UNNAMED, and empty facts.

    Unnamed examples that share a prompt, on either side, form one cluster, named by its first
    prompt; the fact is the clean prompt.
    """
    unnamed = [row for row in rows if row.cluster_id == UNNAMED]
    joined = iter(_components([(row.clean, row.corrupt) for row in unnamed]))
    return tuple(
        replace(
            row,
            cluster_id=unnamed[next(joined)].clean if row.cluster_id == UNNAMED else row.cluster_id,
            fact_id=row.fact_id or row.clean,
        )
        for row in rows
    )


def _components(rows: Sequence[Iterable[str]]) -> list[int]:
    """For each row, the index of the first row connected to it by a chain of shared texts."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[str, int] = {}
    for index, texts in enumerate(rows):
        for text in filter(None, texts):  # a row may have no corrupt prompt
            one, other = sorted((root(first.setdefault(text, index)), root(index)))
            parent[other] = one
    return [root(index) for index in range(len(rows))]


# --- splits --------------------------------------------------------------------------------------


def _apart(row: Example) -> tuple[str, str, str]:
    """The items of a row that may occur in only one half of a split."""
    return f"prompt {row.clean!r}", f"fact {row.fact_id!r}", f"cluster {row.cluster_id!r}"


def _require_apart(path: Path, rows: Sequence[tuple[Example, str]]) -> None:
    seen: dict[str, str] = {}
    for line, (row, half) in enumerate(rows, start=1):
        for shared in _apart(row):
            if seen.setdefault(shared, half) != half:
                raise CorpusError(
                    f"{path}, line {line}: field {SPLIT!r}: its {shared} is also in "
                    f"{seen[shared]}; put both into one half"
                )


def _drawn(path: Path, rows: Sequence[Example], seed: int) -> list[str]:
    """The half of each row, drawn by the seed.

    Rows connected by prompt, fact or cluster stay together; each half gets half of these groups.
    """
    from tinyablation.statistics.intervals import generator

    joined = _components([_apart(row) for row in rows])
    groups = sorted(set(joined))
    if len(groups) < len(SPLITS):
        raise CorpusError(
            f"{path}: its examples form one cluster and cannot be split; add some that share no "
            "prompt, fact or cluster with the others"
        )
    order = generator(seed, "split of an own condition").permutation(len(groups))
    chosen = {groups[int(place)] for place in order[: (len(groups) + 1) // 2]}
    return [DISCOVERY if group in chosen else CONFIRMATION for group in joined]
