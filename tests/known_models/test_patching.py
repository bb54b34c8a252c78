"""H6.1 on models of which it is true, and false: two routes, both or either needed.

Run: pytest tests/known_models/test_patching.py
"""

import pytest

from claims.suppressors import test_h6_patching as h6
from fixtures.calibration.benches import TrialBench
from tests.benches import CORPORA
from tests.known_models.two_routes import LAYERS, profile, save
from tinyablation.interventions.interventions import PatchResidual
from tinyablation.models.registry import ModelEntry
from tinyablation.verdicts.listener import hear

pytestmark = pytest.mark.slow  # half a minute of patching in both directions


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """needs -> the patches of that model, made as claims are given them."""
    made = {}
    for needs in ("both", "either"):
        folder = tmp_path_factory.mktemp(needs)
        entry = ModelEntry(
            id=f"known-{needs}",
            title=needs,
            source=save(needs, folder / "model"),
            family="llama",
            variant="plain",
            bos=True,
        )
        bench = TrialBench(entry, CORPORA, folder / "runs")
        assert bench.gate.reason_blocked("facts") is None
        made[needs] = bench.findings.patches("facts")
    return made


@pytest.mark.parametrize("positions", ["last", "subject"])
@pytest.mark.parametrize("needs", ["both", "either"])
def test_each_layer_is_as_asymmetric_as_the_weights_make_it(patched, needs, positions):
    found = [
        patched[needs].mean_asymmetry(PatchResidual(layer, positions=positions))
        for layer in range(LAYERS)
    ]
    assert found == pytest.approx(profile(needs).tolist(), abs=0.05)


@pytest.mark.parametrize(("needs", "status"), [("both", "supported"), ("either", "refuted")])
def test_noising_does_more_where_both_routes_are_needed(patched, needs, status):
    found = hear(h6.test_patching_is_asymmetric, patched[needs], None)
    assert found.verdict.status == status, found.verdict.reason
    if needs == "both":
        assert found.given["subject"].startswith("layer 4")


@pytest.mark.parametrize("needs", ["both", "either"])
def test_of_one_word_replaced_a_window_is_one_layer(patched, needs):
    """H6.2 is blocked: the word's stream stays replaced above the window's first layer."""
    made = patched[needs]
    for layer in range(3, LAYERS):
        for window in (1, 2):
            last, first = (
                (PatchResidual(layer, window=window, positions="last"), layer + window),
                (PatchResidual(layer, window=window, positions="subject"), layer - window),
            )
            for patch, alone in (last, first):
                single = PatchResidual(min(alone, LAYERS - 1), positions=patch.positions)
                assert made.share_alike(patch, single) == 1
    verdict = hear(h6.test_asymmetry_holds_in_windows, made, None).verdict
    assert verdict.status == "blocked" and "no finding about windows" in verdict.reason


def test_corrupt_prompts_ask_about_unknown_things(patched):
    """Of known ones, every pair has its mirror: by those neither model is asymmetric."""
    clean = patched["both"].noising.baseline("confirmation")
    corrupt = patched["both"].denoising.baseline("confirmation")
    assert not {*clean["clean"]} & {*corrupt["clean"]}
    assert corrupt["logit_diff"].abs().mean() < 0.1 * clean["logit_diff"].mean()
