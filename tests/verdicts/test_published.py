"""Published figures: read, refused. Run: pytest tests/verdicts/test_published.py"""

import re
from pathlib import Path

import pytest

from tinyablation.verdicts.expectations import ExpectationError
from tinyablation.verdicts.published import load_published

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "claims" / "suppressors" / "published.toml"


FIGURE = {
    "claim": '"H1.1"',
    "model": '"gpt2-medium"',
    "condition": '"facts"',
    "value": "0.265",
    "unit": '"logits"',
    "source": '"a study"',
}


def figure(**changes):
    fields = FIGURE | changes
    lines = [f"{key} = {value}" for key, value in fields.items() if value is not None]
    return "\n".join(["[[figure]]", *lines, ""])


def test_published_figures_are_numbers_or_text_in_file_order(write):
    text = figure() + figure(value='"+.38 on one text"', condition='"all"') + figure(claim='"H1.2"')
    published = load_published(write(text))
    assert [entry.value for entry in published.for_claim("H1.1")] == [
        0.265,
        "+.38 on one text",
    ]
    assert [entry.claim for entry in published.for_claim("H1.2")] == ["H1.2"]
    assert published.for_claim("H5.1") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            figure() + figure(sorce='"x"'),
            "file.toml:8: figure 2: unknown key 'sorce'.*'source'",
        ),
        (figure(unit=None), "field 'unit': Field required"),
        (figure(value="nan"), "finite"),
        (figure(low="0.1"), "an interval has two ends"),
        (figure(low="0.3", high="0.4"), r"0.265 is not in its interval \[0.3, 0.4\]"),
        (figure(value='"up"', low="0.3", high="0.4"), "text has no interval"),
        (figure(low='"0.1"', high="0.4"), "field 'low'"),
        (figure(quantity='""'), "field 'quantity'"),
        (figure(quantiy='"x"'), "'quantiy'; did you mean 'quantity'"),
        (figure(value="true"), "field 'value"),
        (figure(condition='"fact"'), "'fact' is not a condition; did you mean 'facts'"),
        (figure(claim='"H1"'), "'H1' is not a claim id"),
        (figure(source='""'), "field 'source'"),
        ("[figure]\nclaim = 'H1.1'", r"write \[\[figure\]\]"),
        ("figure = [1]", "must be a table"),
        (
            '# a\nfigure = [\n  { claim = "H1.1" },\n]',
            "file.toml:3: figure 1: field 'model'",
        ),
        ("[[figures]]\nclaim = 'H1.1'", "unknown key 'figures'; did you mean 'figure'"),
    ],
)
def test_a_wrong_figure_is_refused_with_its_place(write, text, message):
    with pytest.raises(ExpectationError, match=message):
        load_published(write(text))


def test_an_interval_and_a_quantity_are_optional(write):
    text = figure() + figure(low="0.2", high="0.3", quantity='"effects/0:4"')
    first, second = load_published(write(text)).figures
    assert (first.low, first.high, first.quantity) == (None, None, "effect")
    assert (second.low, second.high, second.quantity) == (0.2, 0.3, "effects/0:4")


def test_the_figures_of_the_project_can_be_read():
    published = load_published(PUBLISHED)
    leading = {
        entry.condition: entry.value
        for entry in published.for_claim("H1.1")
        if entry.quantity == "effect"
    }
    assert leading == {"facts": 0.265, "negation": 0.514, "counterfactual": 0.417, "logic": 0.44}
    assert {entry.claim for entry in published.figures} == {
        *(f"H1.{number}" for number in range(1, 10)),
        *(
            f"H5.{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9)
        ),  # H5.6 is the study's null, in H1.8
        *(f"H6.{number}" for number in range(1, 5)),
        *(f"OV.{number}" for number in range(1, 4)),
        *(f"G.{number}" for number in range(1, 4)),
        *("K.1", "S.1", "B.1", "B.2", "D.1"),
    }
    bootstrap = [e for e in published.for_claim("H5.1") if e.low is not None]
    assert [(e.value, e.low, e.high) for e in bootstrap[:1]] == [(0.376, 0.296, 0.459)]
    assert len(bootstrap) == 4
    keys = [
        (e.claim, e.model, e.condition, e.quantity, e.value, e.source) for e in published.figures
    ]
    assert len(set(keys)) == len(keys)


def test_an_interval_has_two_ends_and_may_end_at_the_value(write):
    for one in ({"low": "0.2"}, {"high": "0.3"}):
        with pytest.raises(ExpectationError, match="an interval has two ends"):
            load_published(write(figure(**one)))
    for ends in (("0.265", "0.3"), ("0.2", "0.265")):
        text = figure(low=ends[0], high=ends[1])
        (found,) = load_published(write(text)).figures
        assert (found.low, found.high) == tuple(map(float, ends))


# Levels of LD under the study's own patches, and its layers, which no claim measures.
NOT_MEASURED = {"clean LD", "corrupt LD", "forward LD", "reverse LD", "reverse Δ", "target layer"}

MADE_BY_CODE = {"booster log-odds", "ECE", "Brier", "NLL", "LD by alpha"}  # no key in a claim


def test_a_published_quantity_is_one_that_its_claim_records():
    """Else a measured figure stands beside it, and the page says that none was recorded."""
    claims = "".join(path.read_text("utf-8") for path in PUBLISHED.parent.glob("test_*.py"))
    quantities = {entry.quantity.split("/")[0] for entry in load_published(PUBLISHED).figures}
    heads = {name for name in quantities if re.fullmatch(r"\d+:\d+", name)}  # as records name them
    named = (quantities | {"together / sum"}) - {"together "}  # a name with a slash of its own
    named -= NOT_MEASURED | MADE_BY_CODE | heads | {"effect"}
    assert {name for name in named if f'"{name}":' not in claims} == set()
