"""How the packages and modules of the library stand to each other.

Run: pytest tests/test_structure.py
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "tinyablation"
# The way of the data. A package imports from those before it, and from modules of no package.
ORDER = (
    *("files", "statistics", "records", "verdicts", "models", "corpora", "interventions"),
    *("engine", "runs", "measurement", "analysis", "sessions", "report", "cluster"),
    *("evidence", "api", "study", "cli", "plugin"),
)
MOST_LINES = 450


def modules(folder: Path = LIBRARY) -> dict[str, Path]:
    """By dotted name within the library."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] != "__init__":
            found[".".join(parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that one names, wherever: at its top, in functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyablation"):
            module = (node.module or "").partition(".")[2]
            inner = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            yield from (name for name in dict.fromkeys([module, *inner]) if name in known)


def graph(folder: Path = LIBRARY) -> dict[str, set[str]]:
    known = modules(folder)
    return {name: set(imported(path, known)) for name, path in known.items()}


def package(name: str) -> str:
    return name.rpartition(".")[0]


def test_no_modules_import_each_other():
    """A circle cannot be read from any end; types count as well."""
    found = graph()
    assert "measurement.bench" in found["cluster.worker"]
    assert "measurement.gate" in found["measurement.bench"]
    TopologicalSorter(found).prepare()


def test_a_circle_is_found(tmp_path):
    (tmp_path / "one.py").write_text("def f():\n    from tinyablation.two import x\n")
    (tmp_path / "two.py").write_text("if TYPE_CHECKING:\n    from tinyablation import one\n")
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_packages_stand_in_the_order_of_the_datas_way():
    place = {name: number for number, name in enumerate(ORDER)}
    assert {package(name) for name in modules()} == {"", *ORDER}
    against = {
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if name != "__main__" and place.get(package(other), -1) > place.get(package(name), -1)
    }
    assert against == set()


def test_the_library_imports_none_of_its_users():
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in ("fixtures", "claims", "tests"), (
                    name
                )


def test_modules_are_short_enough_to_be_read():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_every_package_says_what_it_holds():
    for name in ORDER:
        assert ast.get_docstring(ast.parse((LIBRARY / name / "__init__.py").read_text()))
