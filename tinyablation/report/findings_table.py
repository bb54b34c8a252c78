"""The findings of a page: what came out of each claim, counted by kind of model, in one line.

A finding counts test cases. "Supported k of n" is of the n that were judged; the answer in words is
about pretrained models where any was judged, else about positive controls, which show only that the
suite finds what was planted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tinyablation.records.records import JUDGED, Record
from tinyablation.report.model_columns import KINDS, OTHER
from tinyablation.report.questions import QUESTIONS, VALIDITY, in_order
from tinyablation.report.sections import Section
from tinyablation.report.text import number, slug

FIRST = 10  # findings that stand on the first screen; the others unfold
OF_ONE_QUESTION = 4  # at most, of these: related claims often rest on one measurement
MOST_BLOCKED = 0.5  # beyond this share of test cases a finding says how few were judged
# The answer to a claim, with the glyph of the verdict that looks alike.
ANSWERS = {
    "Yes": "supported",
    "Mixed": "inconclusive",
    "No": "refuted",
    "Not shown": "inconclusive",
    "Not judged": "blocked",
}
SHARE = "of "  # how units begin that are shares of another figure: "of the trio's effect"


class Tally(NamedTuple):
    """Test cases of one claim on one kind of model, by verdict."""

    supported: int
    refuted: int
    judged: int
    blocked: int

    @property
    def said(self) -> str:
        """ "3/4", "n/a" where none could be judged, "" where there is no test case."""
        if self.judged:
            return f"{self.supported}/{self.judged}"
        return "n/a" if self.blocked else ""


class Finding(NamedTuple):
    """What came out of one claim."""

    section: Section
    anchor: str
    tallies: dict[str, Tally]  # by kind of model, a key of KINDS
    answer: str  # a key of ANSWERS
    about: str  # the kind of model that the answer is about
    effects: str  # from the least to the largest of the supported test cases
    unit: str
    caveats: list[str]

    @property
    def sentence(self) -> str:
        """The finding as a sentence, for a reader who hears it or copies it."""
        counts = [
            f"{tally.supported} of {tally.judged} on {KINDS[kind].plural}"
            for kind, tally in self.tallies.items()
            if tally.judged
        ]
        said = f"{self.section.record.claim}: {self.section.record.statement.rstrip('.')}. "
        said += f"Supported in {', '.join(counts)}" if counts else "Not judged"
        if self.effects:
            said += f"; effects {self.effects} {self.unit}".rstrip()
        return f"{said}{''.join(f'; {caveat}' for caveat in self.caveats)}."


class Question(NamedTuple):
    """A family of claims under its question."""

    family: str
    title: str
    sections: list[Section]


def questions(made: Sequence[Section]) -> list[Question]:
    """The sections by question, in the order of the page."""
    return [
        Question(
            family,
            QUESTIONS.get(family, ""),
            [section for section in made if section.record.family == family],
        )
        for family in in_order(section.record.family for section in made)
    ]


def findings(
    asked: Iterable[Question], kinds: Mapping[str, str], alpha: float | None
) -> list[Finding]:
    """A finding for each claim, those decided on pretrained models first, then on controls.

    kinds: of each model, by its id; alpha: the false discovery rate of the session, if it has one.
    """
    found = [_finding(section, kinds, alpha) for question in asked for section in question.sections]
    return sorted(found, key=_rank)


def first_and_others(
    found: Sequence[Finding], most: int = FIRST, of_one_question: int = OF_ONE_QUESTION
) -> tuple[list[Finding], list[Finding]]:
    """The findings that stand first, of several questions, and the others; both in order."""
    taken: Counter[str] = Counter()
    first: list[Finding] = []
    for finding in found:
        family = finding.section.record.family
        if len(first) < most and taken[family] < of_one_question:
            taken[family] += 1
            first.append(finding)
    return first, [finding for finding in found if finding not in first]


def _rank(finding: Finding) -> tuple[bool, int, int]:
    tally = finding.tallies[finding.about]
    decided = 0 if finding.answer in ("Yes", "No") else 1 if tally.supported else 2
    decided += finding.answer == "Not shown" and not tally.refuted
    by_kind = list(KINDS).index(finding.about) if tally.judged else len(KINDS)
    return finding.section.record.family == VALIDITY, by_kind, decided


def _finding(section: Section, kinds: Mapping[str, str], alpha: float | None) -> Finding:
    records = [cell.record for cell in section.cells]
    tallies = {}
    for kind in KINDS:
        verdicts = Counter(record.verdict for record in records if kinds[record.model] == kind)
        tallies[kind] = Tally(
            verdicts["supported"],
            verdicts["refuted"],
            sum(verdicts[word] for word in JUDGED),
            verdicts["blocked"],
        )
    about = next((kind for kind, tally in tallies.items() if tally.judged), OTHER)
    of_about = [record for record in records if kinds[record.model] == about]
    supported = [record for record in of_about if record.verdict == "supported"]
    effects, unit = _effects(supported)
    return Finding(
        section,
        "finding-" + slug(section.record.claim, section.record.name),
        tallies,
        _answer(tallies[about]),
        about,
        effects,
        unit,
        _caveats(of_about, supported, alpha),
    )


def _answer(tally: Tally) -> str:
    if not tally.judged:
        return "Not judged"
    if tally.supported == tally.judged:
        return "Yes"
    if tally.refuted == tally.judged:
        return "No"
    return "Mixed" if tally.supported else "Not shown"


def _effects(supported: Sequence[Record]) -> tuple[str, str]:
    """The range of effects and its unit; no range where the effects have several units."""
    measured = [record for record in supported if record.effect is not None]
    units = {record.unit for record in measured}
    if len(units) != 1:
        return "", ""
    ends = sorted(record.effect for record in measured if record.effect is not None)
    shown = [_short(end) for end in (ends[0], ends[-1])]
    return " … ".join(dict.fromkeys(shown)), units.pop()


def _short(value: float) -> str:
    """Two decimals, where they show something: the interval stands with the test case."""
    if abs(value) < 0.01:
        return number(value, signed=True)
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _caveats(
    records: Sequence[Record], supported: Sequence[Record], alpha: float | None
) -> list[str]:
    said = []
    shares = [r.effect for r in supported if r.effect is not None and r.unit.startswith(SHARE)]
    if any(share > 1 for share in shares):
        said.append("above 1: the parts oppose each other")
    if any(share < 0 for share in shares):
        said.append("below 0: some act against the whole")
    blocked = sum(record.verdict == "blocked" for record in records)
    if blocked > MOST_BLOCKED * len(records):
        said.append(f"{blocked} of {len(records)} test cases not judged")
    if alpha is not None:
        lost = sum(r.p_adjusted is not None and r.p_adjusted > alpha for r in supported)
        if lost:
            said.append(f"{lost} not significant at FDR {alpha:.0%}".replace("%", " %"))
    fragile = sum(r.multiverse is not None and r.multiverse.fragile for r in supported)
    if fragile:
        said.append(f"{fragile} fragile under other analyses")
    return said
