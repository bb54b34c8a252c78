"""What a worker keeps between jobs is not kept between tests."""

import pytest


@pytest.fixture(autouse=True)
def _cleared():
    from tinyablation.cluster.worker import DESK

    yield
    DESK.clear()
