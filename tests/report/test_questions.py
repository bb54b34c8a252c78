"""The order of questions on the page. Run: pytest tests/report/test_questions.py"""

import re
from pathlib import Path

from tinyablation.report.questions import QUESTIONS, in_order

CLAIMS = Path(__file__).parents[2] / "claims"


def test_the_study_comes_first_other_packs_next_and_validity_last():
    given = ["V", "B", "OWN", "H5", "H1", "H1"]
    assert in_order(given) == ["H1", "H5", "B", "OWN", "V"]


def test_every_family_of_the_packs_has_its_question():
    sources = [path.read_text(encoding="utf-8") for path in CLAIMS.glob("*/test_*.py")]
    found = {name for text in sources for name in re.findall(r'mark\.claim\("([A-Z]+\d*)\.', text)}
    assert len(found) > 10
    assert found <= set(QUESTIONS)
