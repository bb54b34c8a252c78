"""What files of expectations have in common. Run: pytest tests/verdicts/test_expectations.py"""

import subprocess
import sys
from pathlib import Path

from tinyablation.verdicts.expectations import place_of


def test_expectations_import_nothing_heavy():
    code = """
import sys
from pathlib import Path
import tinyablation.verdicts.predictions, tinyablation.verdicts.published
import tinyablation.verdicts.subjects
print([name for name in ("numpy", "scipy", "pandas", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_place_is_that_of_the_inner_key_on_the_same_line_or_below(tmp_path):
    path = tmp_path / "it.toml"
    text = '"H1.1" = { "tiny-*" = "supported" }\n"H1.2" = { "tiny-*" = "refuted" }\n'
    assert place_of(path, text, "H1.1", "tiny-*") == f"{path}:1"
    assert place_of(path, text, "H1.2", "tiny-*") == f"{path}:2"
    assert place_of(path, text, "H1.3") == str(path)


def test_a_place_is_of_what_is_written_and_not_of_what_is_said_about_it():
    text = '# "H1.1" = another\n"H1.1" = 1  # see H1.2 = 2\n"H1.2" = 2  # and this\n'
    assert place_of(Path("f.toml"), text, "H1.1") == "f.toml:2"
    assert place_of(Path("f.toml"), text, "H1.2") == "f.toml:3"
