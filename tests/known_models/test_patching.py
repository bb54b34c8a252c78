"""H6.1 and H6.2 on models of which they are true, and false: two routes, both or either needed.

Run: pytest tests/known_models/test_patching.py
"""

from dataclasses import replace
from functools import cache

import pytest

from claims.suppressors import test_h6_patching as h6
from fixtures.calibration.benches import TrialBench
from tests.benches import CORPORA
from tests.known_models.two_routes import LAYERS, profile, save
from tests.small_corpora import put_corpora
from tinyablation.interventions.interventions import PatchResidual
from tinyablation.models.registry import ModelEntry
from tinyablation.verdicts.listener import hear

pytestmark = pytest.mark.slow  # a minute of patching in both directions


def measured(folder, change, needs, **options):
    """A model's patches, made as claims are given them, on facts each of which is changed."""
    corpora = put_corpora(folder / "corpora", rows=(64, 64), change=change)
    (corpora / "knowledge").symlink_to(CORPORA / "knowledge")
    entry = ModelEntry(
        id=f"known-{needs}",
        title=needs,
        source=save(needs, folder / "model", **options),
        family="llama",
        variant="plain",
        bos=True,
    )
    bench = TrialBench(entry, corpora, folder / "runs")
    assert bench.gate.reason_blocked("facts") is None
    return bench.findings.patches("facts")


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """needs -> the patches of that model, of facts whose subject is named once."""
    return cache(lambda needs: measured(tmp_path_factory.mktemp(needs), lambda row: row, needs))


def named_twice(example):
    """The example after its subject: Note Russia: In short, the capital of Russia is ..."""
    subjects = example.cluster_id.partition("/")[2].split("~")
    subjects.sort(key=example.fact_id.partition("/")[2].__ne__)
    before = dict(zip(("clean", "corrupt", "null"), [*subjects, "something"], strict=True))
    return replace(
        example,
        **{side: f"Note {word}: {getattr(example, side)}" for side, word in before.items()},
    )


@pytest.mark.parametrize("positions", ["last", "subject"])
@pytest.mark.parametrize("needs", ["both", "either"])
def test_each_layer_is_as_asymmetric_as_the_weights_make_it(patched, needs, positions):
    found = [
        patched(needs).mean_asymmetry(PatchResidual(layer, positions=positions))
        for layer in range(LAYERS)
    ]
    assert found == pytest.approx(profile(needs).tolist(), abs=0.05)


@pytest.mark.parametrize(("needs", "status"), [("both", "supported"), ("either", "refuted")])
def test_noising_does_more_where_both_routes_are_needed(patched, needs, status):
    found = hear(h6.test_patching_is_asymmetric, patched(needs), None)
    assert found.verdict.status == status, found.verdict.reason
    if needs == "both":
        assert found.given["subject"].startswith("layer 4")


@pytest.mark.parametrize("needs", ["both", "either"])
def test_of_one_word_replaced_a_window_is_one_layer(patched, needs):
    """H6.2 is blocked: the word's stream stays replaced above the window's first layer."""
    made = patched(needs)
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


@pytest.mark.parametrize(
    ("needs", "narrow", "alone", "windows"),
    [
        ("both", False, "supported", "supported"),
        ("both", True, "supported", "refuted"),
        ("either", False, "refuted", "refuted"),
    ],
)
def test_windows_of_words_apart(tmp_path, needs, narrow, alone, windows):
    """A window restores and destroys what its first layer does, and a little that no layer does."""
    made = measured(tmp_path, named_twice, needs, narrow=narrow, passed=True)
    expected = profile(needs, narrow=narrow).tolist()
    for window in (1, 2):
        found = [
            made.mean_asymmetry(PatchResidual(layer, window=window, positions="subject"))
            for layer in range(window, LAYERS)
        ]
        assert found == pytest.approx(expected[: LAYERS - window], rel=0.15, abs=0.03)
    assert hear(h6.test_patching_is_asymmetric, made, None).verdict.status == alone
    found = hear(h6.test_asymmetry_holds_in_windows, made, None)
    assert found.verdict.status == windows, found.verdict.reason
    if needs == "both":
        assert found.given["subject"] == "layer 4, subject"


def test_corrupt_prompts_ask_about_unknown_things(patched):
    """Of known ones, every pair has its mirror: by those neither model is asymmetric."""
    clean = patched("both").noising.baseline("confirmation")
    corrupt = patched("both").denoising.baseline("confirmation")
    assert not {*clean["clean"]} & {*corrupt["clean"]}
    assert corrupt["logit_diff"].abs().mean() < 0.1 * clean["logit_diff"].mean()
