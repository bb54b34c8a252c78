"""The names of the API are those that are written down; importing the package brings nothing heavy.

Run: pytest tests/api/test_surface.py
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tinyablation
from tests.api.surface import surface
from tests.test_structure import ROOT

WRITTEN = Path(__file__).parent / "surface.txt"


def test_the_surface_is_what_it_was():
    """A change that is meant: python -m tests.api.surface > tests/api/surface.txt"""
    assert surface() == WRITTEN.read_text(encoding="utf-8")


def test_a_changed_signature_is_seen(monkeypatch):
    monkeypatch.setattr(tinyablation.Sweep, "top", lambda self, n=5: None)
    assert surface() != WRITTEN.read_text(encoding="utf-8")


def test_every_name_says_what_it_is():
    for name in set(tinyablation.__all__) - {"__version__"}:
        assert getattr(tinyablation, name).__doc__


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = tinyablation.laod
    assert {"load", "judge_table"} <= set(dir(tinyablation))


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert tinyablation.__version__ == project.get("version", tinyablation.__version__)


def test_importing_it_loads_nothing():
    code = "import sys, tinyablation; print([m for m in sys.modules if m in {'torch', 'numpy'}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_judging_a_table_needs_no_torch():
    code = (
        "import sys, tinyablation as ta; v = ta.judge_table([.5, .6, .7], [1, 1, 1], 'abc'); "
        "print(v.status, [m for m in sys.modules if m in {'torch', 'transformers'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "supported []"
