"""`--screen`: which heads sweeps measure, and which cells rest on screened sweeps.

A prediction is about a sweep of every head. A cell may be inconclusive only because its sweep was
screened (tinyablation/analysis/screened_sweeps.py): that is a skip, not a missed prediction. The
figures of such cells are not compared with snapshots.
"""

from typing import TYPE_CHECKING, Any

import pytest

from tinyablation.errors import TinyAblationError
from tinyablation.plugin.command_line import command
from tinyablation.plugin.options import is_claims_run, protocol
from tinyablation.plugin.subjects import subjects

if TYPE_CHECKING:
    from tinyablation.measurement.screening import Screening
    from tinyablation.records.trust import Screened


def screening(config: pytest.Config) -> "Screening | None":
    """How this session's sweeps choose their heads; None: they measure all.

    The layers of heads named for a model, by any claim, are measured whole.
    """
    if command(config).screen is None:
        return None
    from tinyablation.measurement.screening import parse_screening

    layers = {}
    for model, subject in subjects(config).subjects.items():
        named = [subject, *subject.claims.values()]
        layers[model] = frozenset(head.layer for each in named for head in each.heads)
    return parse_screening(command(config).screen, layers)


def screened(item: pytest.Item) -> "list[Screened]":
    """The screened sweeps among a claim's fixtures."""
    given: list[Any] = []
    for value in getattr(item, "funcargs", {}).values():
        given += value if isinstance(value, list) else [value]
    found = [getattr(value, "screened", None) for value in given]
    return [each for each in found if each is not None]


@pytest.hookimpl(tryfirst=True)  # before workers start and anything is measured
def pytest_configure(config: pytest.Config) -> None:
    option = command(config)
    if option.screen is None or hasattr(config, "workerinput") or not is_claims_run(config):
        return
    if protocol(config) == "published":
        raise pytest.UsageError(
            "--screen: the published protocol's baseline is the mean over all ablated heads; "
            "screen under the corrected protocol"
        )
    if option.robustness:
        raise pytest.UsageError(
            "--screen with --robustness: the other analyses need every head by every method; give "
            "only one of the two options"
        )
    try:
        screening(config)
    except TinyAblationError as error:
        raise pytest.UsageError(f"--screen: {error}") from error


def pytest_report_header(config: pytest.Config) -> str | None:
    if command(config).screen is None or not is_claims_run(config):
        return None
    return f"screened sweeps ({command(config).screen}): unmeasured heads may have effects"
