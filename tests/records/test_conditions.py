"""Run: pytest tests/records/test_conditions.py"""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinyablation.records.conditions import BINDING, CONDITIONS, IN_CONTEXT, LETTERS, NAMES

ROOT = Path(__file__).parents[2]
# A session or script that imports this first has one more line in the table.
ONE_MORE = """
import sys, types
from pathlib import Path
import tinyablation.records
path = Path(tinyablation.records.__file__).with_name("conditions.py")
text = path.read_text()
module = types.ModuleType("tinyablation.records.conditions")
exec(compile(text.replace("TABLE = (", 'TABLE = (\\n    Condition("ioi", "I"),', 1), path, "exec"),
     module.__dict__)
sys.modules["tinyablation.records.conditions"] = tinyablation.records.conditions = module
"""


def test_the_table_is_what_it_was():
    assert CONDITIONS == ("facts", "negation", "counterfactual", "logic")
    assert (*CONDITIONS, BINDING) == NAMES and set(IN_CONTEXT) == {BINDING}
    assert len(set(LETTERS.values())) == len(NAMES)


def test_nobody_else_lists_the_names():
    """A tuple, list or set that holds all of them would have to be found when one is added."""
    found = []
    for folder in ("tinyablation", "fixtures", "claims", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                parts = getattr(node, "elts", [])
                names = {part.value for part in parts if isinstance(part, ast.Constant)}
                if set(CONDITIONS) <= names:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


@pytest.mark.slow
def test_a_new_one_may_stand_in_a_folder_of_corpora(tmp_path: Path):
    """Adopted, named in the manifest, and given by the library."""
    from tests.small_corpora import EMBEDDED, put_corpora

    put_corpora(tmp_path)
    for name in ("facts.jsonl", "facts.split.json"):
        shutil.copy(tmp_path / "tiny" / name, tmp_path / "tiny" / name.replace("facts", "ioi"))
    (tmp_path / "early.py").write_text(ONE_MORE)
    script = f"""
import early
from pathlib import Path
from tinyablation.corpora.library import Library
from tests.small_corpora import label
label(Path({str(tmp_path)!r}))
library = Library(Path({str(tmp_path)!r}))
print(library.conditions(Path({str(EMBEDDED)!r}), "asked"))
print(library.corpus(Path({str(EMBEDDED)!r}), "ioi", "asked")[0].condition)
"""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]}\n{script}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == ["('ioi', 'facts')", "ioi"], done.stderr
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert list(manifest["conditions"]) == ["ioi", "facts"]
