"""How the modules of the library stand to each other.

Run: pytest tests/test_structure.py
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "tinyablation"
# Too long by what is written in them already; none is added, and none of these grows.
LONG = {"backends": 481, "clean": 560, "engine": 465}
MOST_LINES = 450


def modules(folder: Path = LIBRARY) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that one names, wherever: at its top, in functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyablation"):
            _, _, module = (node.module or "").partition(".")
            names = [module] if module else [alias.name for alias in node.names]
            yield from (name for name in names if name in known)


def graph(folder: Path = LIBRARY) -> dict[str, set[str]]:
    known = modules(folder)
    return {name: set(imported(path, known)) for name, path in known.items()}


def test_no_modules_import_each_other():
    """A circle cannot be read from any end; types count as well."""
    found = graph()
    assert "measuring" in found["jobs"] and "gate" in found["measuring"]
    TopologicalSorter(found).prepare()


def test_a_circle_is_found(tmp_path):
    (tmp_path / "one.py").write_text("def f():\n    from tinyablation.two import x\n")
    (tmp_path / "two.py").write_text("if TYPE_CHECKING:\n    from tinyablation import one\n")
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_the_library_imports_none_of_its_users():
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in ("fixtures", "claims", "tests"), (
                    name
                )


def test_modules_are_short_enough_to_be_read():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: n for name, n in lines.items() if n > LONG.get(name, MOST_LINES)} == {}
