"""A longer search than the everyday one: pytest tests/metamorphic --hypothesis-profile=thorough"""

from pathlib import Path

import pytest
from hypothesis import settings

# Ten times the examples (see searching.rounds), other ones in every run: some five minutes of one
# core. What fails is printed with the decorator that brings it back (print_blob).
settings.register_profile(
    "thorough",
    max_examples=1000,
    derandomize=False,
    deadline=None,
    database=None,
    print_blob=True,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it is slow, over a minute together: `make slow` runs it."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)
