"""What happens to a claim whose model this machine cannot provide: blocked, or failed on demand.

In one place, whichever fixture or measurement found it out, in set-up or in the claim's body:

    Unavailable    no weights, no access, no room: skipped as blocked, with the line that says what
                   to do; under --require-models the claim fails with the same line
    TooFewPrompts  the tokenizer leaves too few examples of a condition: skipped as blocked with the
                   counts, whatever is required, since no machine could provide more
    RatioUndefined a share is asked for, and there is nothing to take one of: skipped as blocked

A session that named such a model by its id does not exit 0 (blocked_cells.py).
The record's verdict is "blocked" in every case. Any other error is one. Where its message says all
that the reader can act on, it is shown without the way through our code (--full-trace shows it).
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from tinyablation.errors import TinyAblationError, Unavailable
from tinyablation.plugin.judge import BLOCKED, ModelRequired
from tinyablation.plugin.options import is_claim
from tinyablation.plugin.selection import cell_of
from tinyablation.plugin.session_models import session_models

UNAVAILABLE = "unavailable"  # property of a test: why this machine cannot provide its model
_missing_key = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True, trylast=True)  # inside the capturing of this phase
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    if not is_claim(item):
        return (yield)
    try:
        with _uncaptured(item):
            return (yield)
    except TinyAblationError as error:
        reason = _reason(item, error)
        if isinstance(reason, pytest.skip.Exception):
            raise reason from error
        if reason is None:
            raise
        # What set-up raises is an error; a model that is missing shall be a failure of the claim.
        item.stash[_missing_key] = str(reason)
        return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    try:
        return (yield)
    except TinyAblationError as error:
        reason = _reason(item, error) if is_claim(item) else None
        if reason is None:
            raise
        raise reason from error


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    __tracebackhide__ = True
    if _missing_key in pyfuncitem.stash:
        raise ModelRequired(pyfuncitem.stash[_missing_key])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if (
        report.failed
        and is_claim(item)
        and isinstance(error, TinyAblationError)
        and not item.config.option.fulltrace
    ):
        notes = getattr(error, "__notes__", [])
        report.longrepr = "\n".join((f"{type(error).__name__}: {error}", *notes))
    return report


def _reason(item: pytest.Item, error: TinyAblationError) -> BaseException | None:
    """What to raise in place of an error; None where it is to stand."""
    line = str(error)
    if isinstance(error, Unavailable):
        item.user_properties.append((UNAVAILABLE, line))
        if item.config.option.require_models:
            return ModelRequired(line)
        return pytest.skip.Exception(f"{BLOCKED}{line}", _use_item_location=True)
    from tinyablation.corpora.filtering import TooFewPrompts
    from tinyablation.statistics.ratios import RatioUndefined

    if isinstance(error, TooFewPrompts | RatioUndefined):
        return pytest.skip.Exception(f"{BLOCKED}{line}", _use_item_location=True)
    return None


def _uncaptured(item: pytest.Item) -> AbstractContextManager[None]:
    """What fixtures of a model that is not embedded print is not captured.

    They may download 15 GB, load them, or wait for their turn on a GPU, and without a sign of life
    that looks like a hang. Bars and notices go to stderr, which is the terminal in a worker of
    xdist too (its stdout is not).
    """
    manager: Any = item.config.pluginmanager.get_plugin("capturemanager")
    if manager is None or session_models(item.config).is_embedded(cell_of(item)[0]):
        return nullcontext()
    uncaptured: AbstractContextManager[None] = manager.global_and_fixture_disabled()
    return uncaptured
