"""Claims found in the text of test files. Run: pytest tests/plugin/test_claim_files.py"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyablation.plugin.claim_files import claim_files, marks_claims, written

MARKED = 'import pytest\n@pytest.mark.claim("LAB.1")\ndef test_a(): ...\n'


def config(folder: Path, *args: str, pyargs: bool = False) -> SimpleNamespace:
    settings = {"python_files": ["test_*.py"], "norecursedirs": [".*", "venv"]}
    return SimpleNamespace(
        args=list(args),
        option=SimpleNamespace(pyargs=pyargs),
        invocation_params=SimpleNamespace(dir=folder),
        getini=settings.__getitem__,
        stash=pytest.Stash(),
    )


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        (MARKED, True),
        ('from pytest import mark\npytestmark = [mark.claim("LAB.1")]\n', True),
        ('def test_a():\n    assert "@pytest.mark.claim(1)"\n', False),
        ('# @pytest.mark.claim("LAB.1")\n', False),
        ("@pytest.mark.claim(\n", False),  # pytest says that it cannot be parsed
        ("x = mark.claims()\n", False),
    ],
)
def test_a_call_of_the_mark_is_told_from_text_about_it(tmp_path, text, marks):
    path = tmp_path / "test_a.py"
    path.write_text(text)
    assert marks_claims(path) is marks


def test_files_are_those_that_pytest_would_collect(tmp_path):
    for name in ("test_a.py", "unit/test_b.py", "unit/b_test.py", "venv/test_c.py", "helper.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(MARKED)
    (tmp_path / "test_none.py").write_text("def test_none(): ...\n")

    def found(*args: str, pyargs: bool = False) -> list[str]:
        paths = claim_files(config(tmp_path, *args, pyargs=pyargs))
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert found(".") == ["test_a.py", "unit/test_b.py"]
    assert found("unit", "test_a.py::test_a") == ["unit/test_b.py", "test_a.py"]
    assert found("helper.py") == ["helper.py"]  # named, so pytest collects it
    assert found("nowhere") == []


def test_a_package_is_found_by_its_name(tmp_path, monkeypatch):
    package = tmp_path / "packed_claims"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    (package / "test_a.py").write_text(MARKED)
    monkeypatch.syspath_prepend(tmp_path)
    assert claim_files(config(tmp_path, "packed_claims", pyargs=True)) == (package / "test_a.py",)
    assert claim_files(config(tmp_path / "x", "packed_claims")) == ()
    assert written(package).claims == {"LAB.1"} and written(package).tests == ("test_a",)
