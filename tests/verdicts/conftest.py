"""Files of expectations for tests."""

import pytest


@pytest.fixture
def write(tmp_path):
    def write(text, name="file.toml"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write
