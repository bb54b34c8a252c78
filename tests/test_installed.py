"""Versions of what is installed. Run: pytest tests/test_installed.py"""

import platform
from importlib.metadata import version

from tinyablation.installed import ABSENT, versions


def test_versions_stand_under_the_names_that_were_asked_for():
    found = versions("python", "huggingface_hub", "transformer-lens", "no-such-package")
    assert found == {
        "python": platform.python_version(),
        "huggingface_hub": version("huggingface-hub"),
        "transformer-lens": version("transformer_lens"),
        "no-such-package": ABSENT,
    }
