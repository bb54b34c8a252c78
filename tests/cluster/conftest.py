"""What a worker keeps between jobs is not kept between tests; it may write where tests do."""

import pytest


@pytest.fixture(autouse=True)
def _cleared(tmp_path_factory, monkeypatch):
    from tinyablation.cluster.worker import DESK, STORES

    monkeypatch.setenv(STORES, str(tmp_path_factory.getbasetemp()))
    yield
    DESK.clear()
