"""What pytest loads of the plugin in every session: marks, options, and a look-out for claims.

PYTEST_DONT_REWRITE

A project whose conftest.py names `tinyablation.plugin` is a host: all modules are loaded from the
start. Everywhere else they are loaded when a test with a claim mark is collected, or earlier, if an
option of ours is given or if workers (pytest -n) will judge claims. There the plugin is a guest: it
judges claims, and leaves the settings and the tests of the project alone.
"""

from typing import Any

import pytest

from tinyablation.plugin.command_line import GUEST, add_options, is_used
from tinyablation.plugin.marks import CLAIM, MARKERS

_OPTIONS = "tinyablation.plugin.options"  # loaded with all others


# Outermost, so that the options of every other plugin and conftest are there already.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Any:
    result = yield
    add_options(parser)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if not _is_loaded(config) and (is_used(config) or _workers_will_judge(config)):
        _load(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, obj: object) -> None:
    if not _is_loaded(collector.config) and (_has_mark(obj) or _is_under_a_mark(collector)):
        from tinyablation.errors import TinyAblationError

        try:
            _load(collector.config)
        except (pytest.UsageError, TinyAblationError) as error:
            raise pytest.Collector.CollectError(str(error)) from error


def _is_loaded(config: pytest.Config) -> bool:
    return config.pluginmanager.has_plugin(_OPTIONS)


def _has_mark(thing: object) -> bool:
    try:
        marks = getattr(thing, "pytestmark", ())
    except Exception:  # any object of a module is looked at
        return False
    return any(
        getattr(mark, "name", None) == CLAIM for mark in (marks if isinstance(marks, list) else ())
    )


def _is_under_a_mark(collector: pytest.Collector) -> bool:
    """Whether pytestmark of the class or module is a claim."""
    return collector.get_closest_marker(CLAIM) is not None


def _workers_will_judge(config: pytest.Config) -> bool:
    """Whether this process distributes claims: then it does not collect them itself."""
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        return False
    from tinyablation.plugin.claim_files import claim_files

    project = config.rootpath / "pyproject.toml"
    has_table = project.is_file() and b"[tool.tinyablation" in project.read_bytes()
    return has_table or bool(claim_files(config))


def _load(config: pytest.Config) -> None:
    from tinyablation import plugin

    config.stash[GUEST] = True
    for name in plugin.pytest_plugins:
        config.pluginmanager.import_plugin(name)
