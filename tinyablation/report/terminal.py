"""What a session says at its end in a terminal, in the words of its page, which has the rest."""

from collections import Counter
from collections.abc import Mapping

from tinyablation.records.records import Record, RecordFile
from tinyablation.report.findings_table import ANSWERS, findings, first_and_others, questions
from tinyablation.report.model_columns import KINDS, columns_of
from tinyablation.report.questions import VALIDITY
from tinyablation.report.sections import sections, standing
from tinyablation.sessions.foresight import foresight, sentence
from tinyablation.spelling import counted, sentence_of

FINDINGS = 5  # lines of findings, at most: the last one counts what does not stand above
OF_ONE_QUESTION = 1  # of those lines: four claims of one family would hide the others
MISSES = 10  # lines of misses, at most


def closing(file: RecordFile) -> list[str]:
    """The findings, the predictions and what missed them, and what verdicts rest on."""
    kinds = {
        column.model.id: column.kind for group in columns_of(file).values() for column in group
    }
    lines = [*_findings(file, kinds), *_predictions(file, kinds)]
    together = file.session.multiplicity
    if together is not None and together.supported:
        lines.append(
            f"{together.discoveries} of {together.supported} supported test cases are significant "
            f"among all {together.n} tests (closed Benjamini-Yekutieli, {together.alpha:g})"
        )
    screened = sum(bool(record.screened) for record in file.records)
    if screened:
        lines.append(
            f"{screened} test cases rest on screened sweeps (--screen): unmeasured heads may have "
            "effects, and each test case gives the bound"
        )
    return lines


def counts(file: RecordFile, *, accepted: bool) -> str:
    """How many test cases have each verdict; accepted: and how they stand to those accepted."""
    verdicts = Counter(str(record.verdict) for record in file.records)
    against = f"; {_counted(Counter(map(_accepted, file.records)))}" if accepted else ""
    return f"{counted(len(file.records), 'test case')}: {_counted(verdicts)}{against}"


def _findings(file: RecordFile, kinds: Mapping[str, str]) -> list[str]:
    """A line a claim, pretrained models first; of many claims some, and what came of the others."""
    alpha = file.session.multiplicity.alpha if file.session.multiplicity else None
    every = findings(questions(sections(file)), kinds, alpha)
    first, others = (
        (every, [])
        if len(every) <= FINDINGS
        else first_and_others(every, FINDINGS - 1, OF_ONE_QUESTION)
    )
    width = max(map(len, ANSWERS))
    lines = [f"{finding.answer:<{width}}  {finding.sentence}" for finding in first]
    if others:
        answers = Counter(finding.answer for finding in others)
        said = ", ".join(f"{answers[word]} {word}" for word in ANSWERS if answers[word])
        lines.append(f"{'':<{width}}  {len(others)} more on the page: {said}")
    return lines


def _predictions(file: RecordFile, kinds: Mapping[str, str]) -> list[str]:
    """The score of the predictions, and the verdicts against them by name, pretrained first."""
    score = foresight(file.records)
    lines = [] if score is None else [sentence(score)]
    missed = [record for record in file.records if standing(record) == "against"]
    if not missed:
        return lines
    order = list(KINDS)
    missed.sort(key=lambda record: (record.family == VALIDITY, order.index(kinds[record.model])))
    alike: dict[tuple[str, str], list[Record]] = {}
    for record in missed:
        name = f"{record.claim} {sentence_of(record.name)}, {record.model}"
        said = f"{record.verdict}, predicted {record.prediction}"
        alike.setdefault((name, said), []).append(record)
    every = [
        f"  {name} ({', '.join(record.condition for record in these)}): {said}"
        for (name, said), these in alike.items()
    ]
    lines += [f"{len(missed)} against prediction:", *every[:MISSES]]
    left = dict.fromkeys(these[0].claim for these in list(alike.values())[MISSES:])
    return [*lines, f"  and more on the page: {', '.join(left)}"] if left else lines


def _accepted(record: Record) -> str:
    """How a verdict stands to the one last accepted for the test case."""
    if record.accepted is None:
        return "not judged" if record.verdict == "blocked" else "not accepted yet"
    if record.accepted == record.verdict:
        return "as accepted"
    if record.outcome in ("skipped", "error") or record.verdict == "error":
        return "not judged"
    return "another verdict than accepted"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
