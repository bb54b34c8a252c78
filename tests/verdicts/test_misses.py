"""Known misses as data: read strictly, and of this project's own file.

Run: pytest tests/verdicts/test_misses.py
"""

from pathlib import Path

import pytest

from tinyablation.verdicts.misses import load_misses
from tinyablation.verdicts.registered import ExpectationError, load_predictions

CLAIMS = Path(__file__).parents[2] / "claims"
ONE = """
[[miss]]
claim = "H1.1"
test = "test_it"
model = "m"
condition = "facts"
predicted = "supported"
found = "refuted"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "misses.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_miss_is_found_by_its_cell(tmp_path):
    known = load_misses(write(tmp_path, ONE))
    miss = known.by_cell["H1.1", "test_it", "m", "facts"]
    assert (miss.predicted, miss.found) == ("supported", "refuted")
    assert known.unmatched([miss.cell], ["m"]) == []
    assert known.unmatched([], ["another"]) == []  # its cells are not collected
    assert known.unmatched([], ["m"]) == ["H1.1 test_it m facts"]


def test_no_file_holds_no_misses(tmp_path):
    assert load_misses(tmp_path / "misses.toml").by_cell == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE + ONE, "is listed twice"),
        (ONE.replace('"refuted"', '"supported"'), "found is what was predicted"),
        (ONE.replace('"refuted"', '"wrong"'), "miss 1: found"),
        (ONE.replace("model", "modell"), "miss 1: model"),
        ("[H1]\n", "nothing else"),
        ("[[miss", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, said):
    with pytest.raises(ExpectationError, match=said) as caught:
        load_misses(write(tmp_path, text))
    assert "misses.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_the_projects_own_are_of_registered_predictions():
    predictions = load_predictions(CLAIMS / "predictions.toml")
    known = load_misses(CLAIMS / "misses.toml")
    for miss in known.by_cell.values():
        registered = predictions.for_cell(miss.claim, miss.model, miss.condition)
        assert registered is not None and registered.verdict == miss.predicted, miss
