"""Which prompts of a record get next tokens and attention, and what one without them says.

Run: pytest tests/plugin/test_next_tokens.py
"""

from types import SimpleNamespace
from typing import Any

import pytest

from tinyablation.errors import WeightsMissing
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.plugin.next_tokens import with_tokens

HEAD, MEAN = AblateHeads(((0, 2),)), AblateHeads(((0, 2),), "mean")
TOKENS = {
    "clean": [{"token": " a", "probability": 0.5}],
    "ablated": [],
    "attended": [{"head": "L0H2", "tokens": [{"token": " b", "probability": 0.25}]}],
}


def prompt(text: str, **asked: Any) -> dict[str, Any]:
    given = {"prompt": text, "target": " a", "foil": " b", "clean_ld": 1.0, "delta": 0.5}
    return given | {"split": "both"} | asked


class Bench:
    """Of two prompts, the second the first with its answers swapped; notes what it is asked."""

    protocol = "corrected"
    elsewhere = None

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.loaded = 0
        self.store = SimpleNamespace(status=lambda config: "missing")

    def config(self, condition: str, name: str, sample: Any) -> str:
        return name

    @property
    def model(self) -> str:
        self.loaded += 1
        return "a model"

    def corpus(self, condition: str) -> Any:
        rows = [("one", " a", " b"), ("one", " b", " a"), ("two", " a", " b")]
        names = ("clean", "target", "foil")
        return SimpleNamespace(
            examples=[SimpleNamespace(**dict(zip(names, row, strict=True))) for row in rows]
        ), None

    def reading(self, condition: str, wanted: Any) -> Any:
        self.asked.append((condition, wanted.cases))
        cases = [TOKENS | {"row": row, "ablation": one.label} for row, one in wanted.cases]
        return SimpleNamespace(document=lambda: {"cases": cases})


def item(bench: Any) -> Any:
    return SimpleNamespace(funcargs={"model": bench})


def test_prompts_of_zeroed_heads_are_asked_for_together_by_their_rows():
    bench = Bench()
    given = [
        prompt("two", corpus="facts", ablation=HEAD),
        prompt("one"),
        prompt("one", corpus="facts", ablation=MEAN),
        prompt("one", corpus="facts", ablation=HEAD),
    ]
    found = with_tokens(item(bench), given)
    assert bench.asked == [("facts", ((2, HEAD), (0, HEAD)))]
    assert found == [
        prompt("two") | TOKENS,
        prompt("one"),
        prompt("one"),
        prompt("one") | TOKENS,
    ]


@pytest.mark.parametrize("why", ["no bench", "published", "patches", "no weights"])
def test_a_record_without_them_has_its_prompts_as_they_are(why: str):
    bench = Bench()
    given = [prompt("two", corpus="facts", ablation=HEAD)]
    if why == "published":
        bench.protocol = "published"
    elif why in ("patches", "no bench"):
        given = [prompt("two")]
    elif why == "no weights":

        def missing(config: str) -> str:
            raise WeightsMissing("the weights are not here")

        bench.store.status = missing
    found = with_tokens(item("a model of another kind" if why == "no bench" else bench), given)
    assert found == [prompt("two")] and bench.asked == []
