"""The templates of the page are compiled once: for a small page, that is most of its time."""

import functools

import pytest

from tinyablation.report import page


@pytest.fixture(scope="session", autouse=True)
def compiled_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_environment", functools.cache(page._environment))
        yield
