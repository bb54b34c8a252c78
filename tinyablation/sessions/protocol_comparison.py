"""Two protocols over the same cells: claims supported under one and refuted under the other.

`corrected` is how this project measures; `published` is how the study did. A cell is compared with
the cell of the same test, claim, model and condition, and only if both sessions used the same
weights.
"""

from collections import Counter
from typing import NamedTuple

from tinyablation.records.records import ProtocolName, Record, RecordFile

MEANING: dict[ProtocolName, str] = {
    "corrected": (
        "each prompt is read at its own last token, heads are zero-ablated, the baseline is the "
        "model without any intervention, and a condition counts for a model only behind a validity "
        "gate"
    ),
    "published": (
        "as the study measured: right padding with the last index read (so a pad, for all but the "
        "longest prompts), zero_folded ablation, the mean over ablated heads as the baseline, no "
        "validity gate"
    ),
}
FATES = {
    "dies": "lives under the published protocol and dies under the corrected one",
    "lives": "lives under the corrected protocol and dies under the published one",
    "same": "same verdict under both",
    "otherwise": "otherwise: inconclusive, blocked or broken under one of them",
}


def fate(corrected: Record, published: Record) -> str:
    """A key of FATES: to live is to be supported, to die is to be refuted."""
    verdicts = (published.verdict, corrected.verdict)
    if verdicts == ("supported", "refuted"):
        return "dies"
    if verdicts == ("refuted", "supported"):
        return "lives"
    return "same" if verdicts[0] == verdicts[1] else "otherwise"


class Pair(NamedTuple):
    """One cell under both protocols."""

    corrected: Record
    published: Record

    @property
    def fate(self) -> str:
        """A key of FATES."""
        return fate(*self)


class ClaimPairs(NamedTuple):
    """The cells of one test under both protocols."""

    claim: str
    name: str
    pairs: list[Pair]

    @property
    def fates(self) -> Counter[str]:
        """The number of cells by fate: keys of FATES."""
        return Counter(pair.fate for pair in self.pairs)

    @property
    def verdicts(self) -> dict[ProtocolName, Counter[str]]:
        """The verdicts of each protocol, counted."""
        return {
            "corrected": Counter(str(pair.corrected.verdict) for pair in self.pairs),
            "published": Counter(str(pair.published.verdict) for pair in self.pairs),
        }


class Comparison(NamedTuple):
    """What can be compared between two sessions, and what cannot."""

    tests: list[ClaimPairs]
    other_weights: list[str]  # models whose weights differ between the sessions
    unmatched: int  # cells of this session that the other one does not have
    started: str  # of the other session
    disputed: int = 0  # cells left out: the sessions that one side was merged from disagree on them

    @property
    def fates(self) -> Counter[str]:
        """The cells of all tests, counted: keys of FATES."""
        return sum((test.fates for test in self.tests), Counter())


CellKey = tuple[str, str, str, str]


def cell_key(record: Record) -> CellKey:
    """The key by which cells are matched."""
    return (record.name, record.claim, record.model, record.condition)


def disputed(file: RecordFile) -> set[CellKey]:
    """The cells that a merged session holds more than once, because its sources disagree."""
    if not file.session.sources:
        return set()
    return {key for key, n in Counter(map(cell_key, file.records)).items() if n > 1}


def compare_protocols(file: RecordFile, other: RecordFile) -> Comparison:
    """The cells of `file` compared with those of `other`, which must have the other protocol.

    A cell on which the sources of a merged session disagree is left out, as none of them wins.
    Raises ValueError if both have the same protocol.
    """
    if file.session.protocol == other.session.protocol:
        raise ValueError(f"both sessions are of the {file.session.protocol} protocol")
    hashes = {model.id: model.weight_hash for model in other.session.models}
    different = {
        model.id
        for model in file.session.models
        if model.weight_hash and hashes.get(model.id) and model.weight_hash != hashes[model.id]
    }
    theirs = {cell_key(record): record for record in other.records}
    tests: dict[tuple[str, str], list[Pair]] = {}
    unmatched, refused = 0, set()
    left_out = (disputed(file) | disputed(other)) & {cell_key(record) for record in file.records}
    for record in file.records:
        if cell_key(record) in left_out:
            continue
        match = theirs.get(cell_key(record))
        if match is None:
            unmatched += 1
        elif record.model in different:
            refused.add(record.model)
        else:
            own_first = file.session.protocol == "corrected"
            pair = Pair(record, match) if own_first else Pair(match, record)
            tests.setdefault((record.claim, record.name), []).append(pair)
    return Comparison(
        tests=[ClaimPairs(claim, name, pairs) for (claim, name), pairs in tests.items()],
        other_weights=sorted(refused),
        unmatched=unmatched,
        started=other.session.started,
        disputed=len(left_out),
    )
