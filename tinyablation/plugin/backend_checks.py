"""Whether plain hooks say what the engine says, of the runs that a claim rests on.

What was checked stands in the runs' verify.json (tinyablation/measurement/agreement.py); here it is
only read. Readings, which are no runs of interventions, have none, and neither has the published
protocol.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from tinyablation.memo import Memo
from tinyablation.plugin.options import protocol, reports_base
from tinyablation.records.plain import RecordError, plain
from tinyablation.records.trust import BackendCheck

if TYPE_CHECKING:
    from tinyablation.verdicts.verdicts import Verdict


# Many cells rest on one run, whose verify.json is read once.
_read_key = pytest.StashKey[Memo]()


def verifications(
    config: pytest.Config, runs: Iterable[str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The verify.json of those of these run directories that have one, and where it lies.

    RunError for one that cannot be read.
    """
    from tinyablation.files.manifests import read_json
    from tinyablation.runs.store import VERIFY

    read = config.stash.setdefault(_read_key, Memo())
    for name in dict.fromkeys(runs):
        path = Path(reports_base(config), "runs", name, VERIFY)
        if path.is_file():
            yield path, read(path, partial(read_json, path))


def _checks(path: Path, document: Mapping[str, Any]) -> list[BackendCheck]:
    """What one verify.json says of backends; RunError where that is not to be understood."""
    from tinyablation.errors import RunError

    try:
        return [BackendCheck.model_validate(found) for found in document.get("backends", ())]
    except (ValidationError, RecordError, TypeError) as error:
        said = str(error).splitlines()[0]
        raise RunError(
            f"{path}: its backends cannot be read ({said}); remove the run's folder, and it is "
            "measured again"
        ) from error


def confirmed(
    item: pytest.Item, verdict: "Verdict", runs: Iterable[str]
) -> tuple["Verdict", dict[str, Any]]:
    """The verdict, blocked where a backend disagrees; and the record's field `backends`.

    The field has one check a backend: of the runs, the one that came nearest to its tolerance.
    """
    if protocol(item.config) != "corrected" or verdict.status == "blocked":
        return verdict, {}
    worst: dict[str, BackendCheck] = {}
    for path, document in verifications(item.config, runs):
        for check in _checks(path, document):
            known = worst.setdefault(check.backend, check)
            if check.largest / check.tolerance > known.largest / known.tolerance:
                worst[check.backend] = check
    refusals = [_refusal(check) for check in worst.values() if not check.agrees]
    if refusals:
        from tinyablation.verdicts.verdicts import blocked

        verdict = blocked("; ".join(refusals), details=verdict.details)
    return verdict, {"backends": plain(list(worst.values()))}


def _refusal(check: BackendCheck) -> str:
    from tinyablation.verdicts.verdicts import figure

    return (
        f"the engine is not confirmed by plain {check.backend}: in {check.run}, {check.where}; at "
        f"most {figure(check.tolerance)} may lie between them"
    )
