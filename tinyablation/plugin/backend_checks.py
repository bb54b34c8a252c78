"""Whether plain hooks agree with the engine for the runs that a claim rests on.

The checks are in the runs' verify.json (tinyablation/measurement/agreement.py) and only read here.
Readings, which are not runs of interventions, and the published protocol have none.
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
    """The contents of verify.json of those run directories that have one, with its path.

    Raises RunError if one cannot be read.
    """
    from tinyablation.files.manifests import read_json
    from tinyablation.runs.store import VERIFY

    read = config.stash.setdefault(_read_key, Memo())
    for name in dict.fromkeys(runs):
        path = Path(reports_base(config), "runs", name, VERIFY)
        if path.is_file():
            yield path, read(path, partial(read_json, path))


def _checks(path: Path, document: Mapping[str, Any]) -> list[BackendCheck]:
    """The backend checks in one verify.json; RunError if they cannot be read."""
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
    """The verdict, blocked if a backend disagrees, and the record's field `backends`.

    The field has one check per backend: that of the run that came closest to its tolerance.
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
    from tinyablation.verdicts.floors import figure

    return (
        f"the engine is not confirmed by plain {check.backend}: in {check.run}, {check.where}; at "
        f"most {figure(check.tolerance)} may lie between them"
    )
