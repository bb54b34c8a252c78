"""Claims whose model this machine cannot provide: blocked, or failed on demand.

Handled in one place, for all fixtures and measurements, in set-up or in the claim's body:

    Unavailable    no weights, no access, not enough memory: skipped as blocked, with a line that
                   says what to do; with --require-models the claim fails with the same line
    TooFewPrompts  the tokenizer leaves too few examples of a condition: skipped as blocked with the
                   counts, even with --require-models, because no machine could provide more
    RatioUndefined there is no effect to take a share of: skipped as blocked

A session that named such a model by its id does not exit 0 (blocked_cells.py).
The record's verdict is "blocked" in every case. All other errors remain errors. If the message
contains all that the user needs, it is shown without a traceback (--full-trace shows it).
"""

import re
import traceback
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from tinyablation.errors import OutOfMemory, TinyAblationError, Unavailable
from tinyablation.plugin.command_line import command
from tinyablation.plugin.judge import BLOCKED, ModelRequired
from tinyablation.plugin.options import is_claim
from tinyablation.plugin.selection import cell_of
from tinyablation.plugin.session_models import session_models
from tinyablation.records.plain import plain

UNAVAILABLE = "unavailable"  # property of a test: why this machine cannot provide its model
# As torch's allocator, the loader of libraries and the kernel say it.
_SAYS_MEMORY = re.compile("not enough memory|[Cc]annot allocate memory|failed to map segment")
_missing_key = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True, trylast=True)  # inside the capturing of this phase
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    if not is_claim(item):
        return (yield)
    try:
        with _uncaptured(item), _out_of_memory():
            return (yield)
    except TinyAblationError as error:
        reason = _reason(item, error)
        if isinstance(reason, pytest.skip.Exception):
            raise reason from error
        if reason is None:
            raise
        # An exception in set-up is an error; a missing model must be a failure of the claim.
        item.stash[_missing_key] = str(reason)
        return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    try:
        with _out_of_memory() if is_claim(item) else nullcontext():
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
        and not command(item.config).fulltrace
    ):
        notes = getattr(error, "__notes__", [])
        report.longrepr = "\n".join((f"{type(error).__name__}: {error}", *notes))
    return report


def _reason(item: pytest.Item, error: TinyAblationError) -> BaseException | None:
    """The exception to raise instead of an error; None to keep the error."""
    line: str = plain(str(error))
    if isinstance(error, Unavailable):
        item.user_properties.append((UNAVAILABLE, line))
        if command(item.config).require_models:
            return ModelRequired(line)
        return pytest.skip.Exception(f"{BLOCKED}{line}", _use_item_location=True)
    from tinyablation.corpora.filtering import TooFewPrompts
    from tinyablation.statistics.ratios import RatioUndefined

    if isinstance(error, TooFewPrompts | RatioUndefined):
        return pytest.skip.Exception(f"{BLOCKED}{line}", _use_item_location=True)
    return None


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """Turn an error of memory into OutOfMemory, and free what its frames hold.

    Else pytest, which formats the traceback and keeps it, would need the memory that there is not.
    """
    try:
        yield
    except (MemoryError, OSError, ImportError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _SAYS_MEMORY.search(str(error)):
            raise
        traceback.clear_frames(error.__traceback__)
        raise OutOfMemory(
            "this machine, or what the session may take of it, has not enough memory: close other "
            "programs, give fewer workers (-n) or a smaller --dtype, and run the same command again"
        ) from None


def _uncaptured(item: pytest.Item) -> AbstractContextManager[None]:
    """Context that disables capturing for the fixtures of a model that is not embedded.

    They may download 15 GB, load them, or wait for a turn on a GPU, which looks like a hang without
    any output. Progress bars and notices go to stderr, which is the terminal also in an xdist
    worker (its stdout is not).
    """
    manager: Any = item.config.pluginmanager.get_plugin("capturemanager")
    if manager is None or session_models(item.config).is_embedded(cell_of(item)[0]):
        return nullcontext()
    uncaptured: AbstractContextManager[None] = manager.global_and_fixture_disabled()
    return uncaptured
