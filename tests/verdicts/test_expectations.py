"""What files of expectations have in common. Run: pytest tests/verdicts/test_expectations.py"""

import subprocess
import sys


def test_expectations_import_nothing_heavy():
    code = """
import sys
import tinyablation.verdicts.predictions, tinyablation.verdicts.published
import tinyablation.verdicts.subjects
print([name for name in ("numpy", "scipy", "pandas", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
