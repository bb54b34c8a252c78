"""docs/api.md: its examples are executed, its names, arguments and columns are those of the code.

Run: pytest tests/api/test_page.py
"""

import doctest
import inspect
import re

import pytest

import tinyablation
from tests.test_structure import ROOT
from tinyablation.engine.tables import PER_EXAMPLE_COLUMNS

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```pycon\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RESULTS = ("Check", "Sweep", "HeadSets", "Patches", "Paths", "Written", "Verdict")


def run(text: str) -> tuple[int, str]:
    """The number of examples of a text that fail, in one namespace, and what was said of them."""
    said: list[str] = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
    test = doctest.DocTestParser().get_doctest(text, {}, "api.md", "docs/api.md", 0)
    runner.run(test, out=said.append)
    return runner.failures, "".join(said)


@pytest.mark.slow
def test_every_example_gives_what_it_says():
    assert len(BLOCKS) >= 8
    failures, said = run("\n".join(BLOCKS))
    assert not failures, said


def test_a_wrong_example_is_seen():
    assert run(">>> 1 + 1\n3\n")[0] == 1


def test_every_name_is_on_the_page():
    for name in set(tinyablation.__all__) - {"__version__"}:
        assert f"`{name}`" in PAGE, name


@pytest.mark.parametrize("name", ["load", "judge_table"])
def test_arguments_are_those_of_the_function(name):
    section = re.search(rf"^## {name}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL).group(1)
    table = section.split("| argument | meaning |", 1)[1].split("\n\n", 1)[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    documented = {word for cell in first for word in re.findall(r"`(\w+)`", cell)}
    assert documented == set(inspect.signature(getattr(tinyablation, name)).parameters)
    call = re.search(rf"^`{name}\(([^`]*)\)`", section, re.MULTILINE).group(1)
    assert set(re.findall(r"\b([a-z_]+)\b(?==None|,|$)", call)) == documented


@pytest.mark.parametrize("name", RESULTS)
def test_members_of_results_are_on_the_page(name):
    found = getattr(tinyablation, name)
    members = {
        member
        for member, value in inspect.getmembers_static(found)
        if not member.startswith("_")
        and member in vars(found)
        and not isinstance(value, classmethod)
    }
    for member in members - {"study", "of", "head", "document", "sets"}:
        assert re.search(rf"`{member}\b", PAGE), f"{name}.{member}"


def test_columns_are_those_of_the_tables():
    table = PAGE.split("## Columns of rows", 1)[1].split("\n\n")[1]
    first = [line.split("|")[1] for line in table.splitlines()]
    documented = [word for cell in first for word in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(PER_EXAMPLE_COLUMNS)


@pytest.mark.slow
def test_columns_of_every_result_are_on_the_page(model, rows, tuples):
    tables = (
        model.check(tuples).table,
        model.sweep(tuples).table,
        model.ablate(tuples, "L0H7").table,
        model.patch(rows).table,
        model.path(tuples, "L0H7").table,
        model.ov(tuples, "L0H7").table,
    )
    for column in {column for table in tables for column in table.columns}:
        short = re.sub(r"^(denoising|noising)(?=_)", "", column)
        assert f"`{short}`" in PAGE, column
