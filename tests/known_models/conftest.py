"""The models, built once for all tests of this folder."""

import pytest

from tests.known_models.measuring import Shelf


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("known-models"))
