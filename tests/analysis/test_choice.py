"""A head chosen by halves. Run: pytest tests/analysis/test_choice.py"""

from tinyablation.analysis.choice import CROSSED_CONFIDENCE, Choice
from tinyablation.heads import Head
from tinyablation.verdicts.verdicts import CONFIDENCE

FIRST, OTHER = Head(0, 2), Head(1, 5)


def test_a_choice_by_both_halves_has_the_wider_interval_and_names_both():
    both = Choice({"discovery": OTHER, "confirmation": FIRST}, "both")
    assert both.head == FIRST and both.name == "0:2 (1:5 on discovery)"
    assert both.confidence == CROSSED_CONFIDENCE


def test_a_choice_that_both_halves_agree_on_is_named_once():
    same = Choice({"discovery": FIRST, "confirmation": FIRST}, "both")
    assert same.name == "0:2" and same.confidence == CROSSED_CONFIDENCE


def test_a_choice_that_one_half_judges_has_the_plain_interval():
    one = Choice({"confirmation": FIRST}, "confirmation")
    assert one.name == "0:2" and one.confidence == CONFIDENCE < CROSSED_CONFIDENCE
