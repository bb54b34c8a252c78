"""What the page says of how far verdicts can be trusted: nothing that a record has is left out.

Run: pytest tests/test_trust.py
"""

from pathlib import Path

import pytest

from tests.fake_sessions import HOSTILE, Page, fake_session, opened
from tinyablation.records.error_rates import goals, read_error_rates
from tinyablation.records.trust import (
    BackendCheck,
    Boundary,
    Counterexample,
    Multiplicity,
    Multiverse,
    NoiseRow,
)
from tinyablation.report.page import render

ROOT = Path(__file__).parent.parent
MULTIVERSE = Multiverse(
    n=108,
    agreed=27,
    least_share=0.5,
    verdicts={"inconclusive": 11, "refuted": 70, "supported": 27},
    by_choice={
        "method": {"zero": (9, 36), "mean": (18, 36)},
        "metric": {"LD": (27, 27), "KL": (0, 27)},
    },
    not_made={"method zero_folded": "the same as zero in this model, and counted once"},
)
BOUNDARY = Boundary(
    rule="fails where ablating 0:7 lowers LD",
    grammar=5120,
    searched=640,
    failed=31,
    found=[
        Counterexample(
            prompt=f"So, the capital of France is{HOSTILE}",
            target=" Paris",
            foil=" Rome",
            choices={"prefix": "So,"},
            clean_ld=3.25,
            delta=-0.75,
        )
    ],
    parts={"prefix": {"So,": (31, 80), "": (0, 80)}},
)
AGREES = BackendCheck(
    backend="Hugging Face hooks",
    run="a-run",
    n_examples=2,
    n_interventions=4,
    largest=2e-6,
    tolerance=1e-3,
    where="example 3 under zero:0.7: the engine says Delta = 1.2 logits",
)
DISAGREES = AGREES.model_copy(
    update={"backend": "TransformerBridge hooks", "largest": 0.25, "where": f"example {HOSTILE}"}
)


def shown(session_update=None, **changes):
    """(page, its HTML) of a session of one supported record with these changes."""
    session = fake_session()
    record = next(each for each in session.records if each.verdict == "supported")
    record = record.model_copy(update=changes)
    about = session.session.model_copy(update=session_update or {})
    html = opened(render(session.model_copy(update={"session": about, "records": [record]})))
    return Page(html), html


def test_other_analyses_their_share_and_a_fragile_mark():
    page, _ = shown(multiverse=MULTIVERSE)
    assert "27 of 108 agree: fragile (below 0.500)" in page.text
    for said in (
        "11 inconclusive",
        "70 refuted",
        "27 supported",
        "method zero 9 of 36",
        "mean 18 of 36",
        "KL 0 of 27",
        "not made: method zero_folded: the same as zero in this model",
    ):
        assert said in page.text, said
    sound, _ = shown(multiverse=MULTIVERSE.model_copy(update={"agreed": 80}))
    assert "80 of 108 agree;" in sound.text and "fragile (" not in sound.text
    none, _ = shown(multiverse=MULTIVERSE.model_copy(update={"n": 0, "agreed": 0}))
    assert "none could be made" in none.text


def test_the_boundary_lists_prompts_on_which_the_claim_fails():
    page, html = shown(boundary=BOUNDARY)
    assert f"{BOUNDARY.rule}: 31 of 640 prompts measured, of 5120 the grammar has" in page.text
    assert "fails on 31 of 640 prompts" in page.text
    assert "So, the capital of France is" in page.text and HOSTILE not in html
    assert "prefix So, 31 of 80" in page.text
    empty = BOUNDARY.model_copy(update={"failed": 0, "found": []})
    assert "fails on" not in shown(boundary=empty)[0].text


def test_backends_agree_or_disagree_and_where():
    page, html = shown(backends=[AGREES, DISAGREES])
    text = page.text
    assert "Hugging Face hooks agree: at most 2.0e−06 logits off on 2 examples × 4" in text
    assert "TransformerBridge hooks disagree : at most 0.250 logits off" in text
    assert "tolerance 0.001" in text and "example </script>" in text and HOSTILE not in html
    # Where they agree, the worst example is nobody's business.
    assert AGREES.where not in text


def test_a_changed_prediction_is_said_at_the_cell_and_in_the_count():
    page, _ = shown(prediction_changed="refuted was registered when these runs were first judged")
    assert "changed. refuted was registered when these runs were first judged" in page.text
    assert "prediction changed" in page.text
    assert "1 of 1 test cases have another prediction than the one registered" in page.text
    assert "another prediction" not in shown()[0].text


@pytest.mark.parametrize(("p", "discovery"), [(0.004, True), (0.2, False)])
def test_all_tests_of_the_session_together(p, discovery):
    ledger = Multiplicity(alpha=0.05, n=40, supported=9, discoveries=6, lost=3, largest_p=0.001)
    page, _ = shown({"multiplicity": ledger}, p_value=0.0004, p_adjusted=p)
    assert "6 of 9 supported test cases are significant" in page.text
    assert (
        "over the 40 tests of this session" in page.text and "Benjamini and Yekutieli" in page.text
    )
    assert ("adjusted over the session " + str(p)) in page.text.replace("0.200", "0.2")
    assert (": significant at FDR 5 %" in page.text) == discovery
    assert ("· not significant at FDR 5 %" in page.text) == (not discovery)


def test_noise_by_device_and_dtype():
    rows = [
        NoiseRow(device="cpu", dtype="float32", runs=12, repeat=0.0, shape=2e-6),
        NoiseRow(device="cuda", dtype="bfloat16", runs=3, repeat=0.25, shape=0.5, reference=0.75),
    ]
    page, _ = shown({"noise": rows})
    assert "an effect within it is inconclusive" in page.text
    assert "cpu float32 12 0.000 2.0e−06 is it" in page.text
    assert "cuda bfloat16 3 0.250 0.500 0.750" in page.text
    assert ("a", "#trust") in page.links and "trust" in page.ids


def test_error_rates_stand_beside_the_verdicts_of_their_test():
    rates = read_error_rates(ROOT / "fixtures" / "calibration" / "error_rates.json")
    claim, test = next(each for each in rates.tests() if len(rates.of_test(each[1])) == 2)
    page, _ = shown({"error_rates": rates}, name=test, claim=claim)
    support, refutation = sorted(rates.of_test(test), key=lambda row: row.error, reverse=True)
    assert f"Supported though untrue of {support.k} of {support.n} models" in page.text
    assert f"Refuted though true of {refutation.k} of {refutation.n} models" in page.text
    for row in rates.detectable:
        if row.test == test:
            assert ("Finds a planted effect of" in page.text) == (row.dose is not None)
    (own,) = [each for each in goals(rates) if each.test == test]
    for figure in own[2:]:
        assert figure in page.text
    assert own.support in page.text and own.support_goal
    assert "make calibrate" in page.text and "Power: the share of plants found" in page.text
    assert "Monte Carlo error" in page.text
    one = rates.resolution[0]
    assert f"{one.model} {one.claim}" in page.text and one.condition in page.text


def test_nothing_is_said_where_nothing_is_known():
    page, _ = shown(p_value=None)
    assert "How far this verdict can be trusted" not in page.text
    assert "How often this suite is wrong" not in page.text and "trust" not in page.ids
