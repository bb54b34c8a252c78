"""Whether a page can be believed, in one strip: predictions, controls, error rates, scope.

Every item is a figure with what it is of, and the place of the page that says more.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tinyablation.records.conditions import CONDITIONS
from tinyablation.records.error_rates import ErrorRates
from tinyablation.records.records import JUDGED, Record, RecordFile
from tinyablation.report.questions import VALIDITY
from tinyablation.report.sections import Section
from tinyablation.sessions.foresight import foresight
from tinyablation.spelling import sentence_of

PLANTED = "H1"  # the family of claims that a negative control has nothing planted for


class Item(NamedTuple):
    """One entry of the strip. link: an address within the page, "" where nothing says more."""

    name: str
    said: str
    link: str = ""


def strip(file: RecordFile, made: Sequence[Section], kinds: Mapping[str, str]) -> list[Item]:
    """The entries that can be made of the session; kinds: of each model, by its id."""
    session = file.session
    items = _predictions(file.records)
    # What nothing was planted for: the claims of a suppressor, which is what a control is without.
    controls = [
        record
        for record in file.records
        if kinds[record.model] == "plain" and record.family == PLANTED and record.verdict in JUDGED
    ]
    if controls:
        n = sum(record.verdict == "supported" for record in controls)
        link = f"#k={PLANTED}&t=plain&v=supported"
        name = f"{PLANTED} supported in negative controls"
        items.append(Item(name, f"{n} of {len(controls):,}", link))
    if session.multiplicity is not None and session.multiplicity.supported:
        found = session.multiplicity
        rate = f"{found.alpha:.0%}".replace("%", " %")
        said = f"{found.discoveries} of {found.supported} supported are significant"
        items.append(Item(f"FDR {rate}", said, "#x=lost" if found.lost else "#trust"))
    if session.error_rates is not None:
        detectable = _detectable(session.error_rates, {record.model for record in file.records})
        if detectable:
            items.append(Item("Detectable effect (80 % power)", detectable, "#trust"))
    figures = [row for section in made for row in section.published]
    if figures:
        comparable = sum(
            any(beside.replication.outcome != "not comparable" for beside in row.beside)
            for row in figures
        )
        first = next(section for section in made if section.published)
        said = f"{comparable} of {len(figures)}"
        if not any(row.beside for row in figures):
            said += ": all are of other models or conditions"
        items.append(Item("Published figures comparable", said, f"#{first.published_at}-published"))
    scope = _scope(record for record in file.records if record.family != VALIDITY)
    if scope:
        items.append(Item("Generalises over", scope))
    return items


def _predictions(records: Sequence[Record]) -> list[Item]:
    edited = sum(record.prediction_changed is not None for record in records)
    original = sum(r.prediction is not None and r.prediction_changed is None for r in records)
    if not (original or edited):
        return []
    said = f"{original:,} original, {edited:,} edited after measurement"
    items = [Item("Predictions", said, "#x=edited" if edited else "")]
    score = foresight(records)
    if score is not None and score.every.fixed:
        every, heads = score
        came = f"{every.true:,} of {every.fixed:,} original came true"
        said = f"{came} ({every.true / every.fixed:.0%})"
        if every.blocked:
            said += f", {every.blocked:,} of them as blocked"
        if 0 < heads.fixed < every.fixed:
            said += f"; without validity {heads.true / heads.fixed:.0%}"
        items.append(Item("Foresight", said.replace("%", " %"), "#answer"))
    return items


def _detectable(rates: ErrorRates, models: set[str]) -> str:
    """The effect found with 80 % power: of the session's own models, or of the suite's tests."""
    own = [row for row in rates.resolution if row.model in models]
    if own:
        least, most = (f(own, key=lambda row: row.detectable) for f in (min, max))
        low = f"{least.claim}, {least.condition}"
        said = f"{least.detectable:.1%} of the clean LD ({low}) to {most.detectable:.1%}"
        return said.replace("%", " %")
    known = [(row.dose, row) for row in rates.detectable if row.dose is not None]
    heads = [pair for pair in known if pair[1].claim.startswith("H1.1")] or known
    if not heads:
        return ""
    dose, row = min(heads, key=lambda pair: pair[0])
    return f"{dose:.1%} of the clean LD ({row.claim} {sentence_of(row.test)})".replace("%", " %")


def _scope(records: Iterable[Record]) -> str:
    """By condition, the scope of most test cases."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        if record.scope:
            counts.setdefault(record.condition, Counter())[record.scope] += 1
    order = [name for name in CONDITIONS if name in counts] + sorted(counts.keys() - {*CONDITIONS})
    by_scope: dict[str, list[str]] = {}
    for name in order:
        by_scope.setdefault(counts[name].most_common(1)[0][0], []).append(name)
    return "; ".join(f"{', '.join(names)}: {scope}" for scope, names in by_scope.items())


def study_of(records: Iterable[Record]) -> str:
    """The publication whose figures most records with figures are put beside; "" without one."""
    cited = Counter(
        figure.source.split(" (", 1)[0]
        for record in records
        for figure in {figure.source: figure for figure in record.published}.values()
    )
    if not cited:
        return ""
    study, n = cited.most_common(1)[0]
    return study if 2 * n > cited.total() else ""
