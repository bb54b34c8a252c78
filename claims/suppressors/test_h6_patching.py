"""H6: what patching activations between the prompts of a pair says, and by which way it travels.

Denoising puts the clean prompt's activations into the corrupt one's run (are they sufficient for
the answer?), noising the corrupt prompt's into the clean one's (are the clean ones necessary?),
both as a share of LD clean - LD corrupt, on aligned pairs only, so that nothing is compared across
read positions. Corrupt prompts ask about unknown things: if they were the clean prompts of other
pairs, denoising one pair would be noising the other. Layers and positions are chosen on the
discovery split, judged on the confirmation split.
"""

from dataclasses import replace

import pytest

from tinyablation.analysis.patching import (
    ASYMMETRY_FLOOR,
    DIRECTIONS,
    is_flat,
    residual_patches,
)
from tinyablation.heads import head_name
from tinyablation.interventions.interventions import PatchResidual
from tinyablation.records.panels import CurvePanel, GridPanel, Series
from tinyablation.statistics.ratios import RatioUndefined
from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.verdicts import (
    blocked,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
)

MOST = 0.5  # H6.3: "about 67 %" means that most of the effect takes the path
FEW = 0.2  # H6.4: the study's 5.9 % [1.8, 10.1] is little; a fifth still would be
WINDOWS = (1, 2)
REPEATED = 0.5  # H6.2: of the examples; a mean of which half repeat a layer is of that layer


@pytest.mark.claim("H6.1")
def test_patching_is_asymmetric(patches, twin_patches, judge):
    """Noising the residual stream destroys more of the answer than denoising restores.

    Estimator: noising minus denoising, as shares of LD clean - LD corrupt, at the layer and
      position (last token, or the words that were replaced) where it is largest on discovery.
    Threshold: the 95 % interval over fact clusters lies above .05 of LD clean - LD corrupt, with
      p <= .05 under exchange of the directions. Blocked where the corrupt prompts are the clean
      ones of other pairs, and where both directions are the same at every layer: whole streams, or
      another position than the one read, were patched.
    Refuted if: the interval lies below .05.
    """
    patch = patches.most_asymmetric(residual_patches(patches.n_layers))
    positions = ("last", "subject", "all")
    profiles = _profiles(
        patches, [each for each in positions if patches.has(PatchResidual(0, positions=each))]
    )
    wrong = PatchResidual(patch.layer, positions=patch.positions, donor="other")
    judge(
        _asymmetry(patches, patch),
        subject=f"layer {patch.layer}, {patch.positions}",
        details={
            "corrupt prompts": patches.pairs,
            "recovery by layer": profiles,
            "wrong example's activations": (
                {direction: patches.share(direction, wrong) for direction in DIRECTIONS}
                if patches.has(wrong)
                else "not measured where clusters are relations"
            ),
            "sham patch, largest change of LD in logits": patches.sham(),
            "noising - denoising here": patches.mean_asymmetry(patch),
            "noising - denoising of the twin": _of_twin(twin_patches, patch),
        },
        panels=_shares(profiles),
        largest=_asymmetric(patches, patch),
        runs=patches.runs,
    )


@pytest.mark.claim("H6.2")
def test_asymmetry_holds_in_windows(patches, twin_patches, judge):
    """Noising the replaced words destroys more than denoising restores, in windows of layers too.

    Estimator: as for a single layer (H6.1), for the residual stream of all layers of each window at
      the words that were replaced: 1 and 2 layers on either side, up to the last, of the layer
      from 3 on where it is largest alone on discovery. (At the last token a window does what its
      last layer does alone; a window with layer 0 in it does all that the other prompt does.)
    Threshold: for both windows, the 95 % interval lies above .05 of LD clean - LD corrupt, with
      p <= .05 under exchange of the directions. Blocked as H6.1, in models of three layers or
      fewer, and where a window does what one of its layers does alone in half of the examples, as
      where the words replaced stand side by side.
    Refuted if: one interval lies below .05, corrected for two windows.
    """
    alone = residual_patches(patches.n_layers, ("subject",))[max(WINDOWS) + 1 :]
    if not alone:
        judge(
            blocked(
                f"too few layers: of {patches.n_layers}, every window of {max(WINDOWS)} has layer "
                "0 in it, and does all that the other prompt does"
            )
        )
        return
    centre = patches.most_asymmetric(alone)
    wide = {window: replace(centre, window=window) for window in WINDOWS}
    profiles = {
        f"windows of {window}, {name}": profile
        for window in WINDOWS
        for name, profile in _profiles(patches, (centre.positions,), window).items()
    }
    judge(
        judge_all_of([_of_window(patches, patch) for patch in wide.values()]),
        subject=f"layer {centre.layer}, {centre.positions}",
        details={
            "corrupt prompts": patches.pairs,
            "recovery by layer": profiles,
            "noising - denoising of the twin": {
                f"windows of {window}": _of_twin(twin_patches, patch)
                for window, patch in wide.items()
            },
        },
        panels=_shares(profiles),
        largest=_asymmetric(patches, centre),
        runs=patches.runs,
    )


@pytest.mark.claim("H6.3")
def test_path_mediates_most(paths, subject, judge):
    """Most of the leading head's effect takes the direct path into the middle layer's stream.

    Estimator: Delta with only the head's direct contribution cut from the stream that enters the
      layer, as a share of Delta with the head zero-ablated; bootstrapped together over fact
      clusters.
    Threshold: the 95 % interval lies above .5; blocked where the head has no effect above 0.
    Refuted if: the interval lies below .5.
    """
    layer = subject.receiver or paths.n_layers // 2
    _judge_path(paths, layer, judge, floor=MOST)


@pytest.mark.claim("H6.4")
def test_path_mediates_little(paths, subject, judge):
    """Little of the leading head's effect takes the direct path into the middle layer's stream.

    Estimator: as for H6.3.
    Threshold: the 95 % interval lies between -.2 and .2 (a path that takes back what the others do
      is not little either); blocked where the head has no effect above 0.
    Refuted if: the interval lies above .2 or below -.2, corrected for the two.
    """
    layer = subject.receiver or paths.n_layers // 2
    _judge_path(paths, layer, judge, ceiling=FEW)


def _of_window(patches, patch):
    """The verdict on one window; blocked if it does what one of its layers does alone.

    Equal interventions are one measurement (P9). Words that stand side by side, after the same
    text, read only that text and each other: once replaced they stay so in all layers above.
    """
    alone = {
        layer: patches.share_alike(patch, replace(patch, layer=layer, window=0))
        for layer in patch.layers(patches.n_layers)
    }
    layer = max(alone, key=alone.__getitem__)
    if alone[layer] < REPEATED:
        return _asymmetry(patches, patch)
    return blocked(
        f"in {alone[layer]:.0%} of the examples the window of {patch.window} round layer "
        f"{patch.layer}, {patch.positions}, does what layer {layer} does alone, within the "
        f"numerical noise of {figure(patches.resolution())} logits: no finding about windows"
    )


def _asymmetry(patches, patch):
    """The verdict on "noising does more than denoising" by one patch."""
    profiles = _profiles(patches, (patch.positions,), patch.window)
    where = f"layer {patch.layer}, {patch.positions}"
    if all(is_flat(profile) for profile in profiles.values()):
        return blocked(
            f"what patching {where} restores and destroys is the same at every layer: an artefact "
            "of the instrument, or all of the answer; no finding about a layer"
        )
    window = f", windows of {patch.window}" if patch.window else ""
    return judge_above_floor(
        patches.asymmetry(patch),
        floor=patches.bound(ASYMMETRY_FLOOR),
        p_corrected=patches.p_asymmetry(patch),
        p_test="permutation",
        what=f"noising - denoising at {where}{window}",
        unit="of LD clean - LD corrupt",
    )


def _profiles(patches, positions, window=0):
    """What every layer restores and destroys, by direction and position, on confirmation."""
    return {
        f"{direction}, {where}": patches.profile(
            direction,
            lambda layer, where=where: PatchResidual(layer, window=window, positions=where),
            "confirmation",
        )
        for where in positions
        for direction in DIRECTIONS
    }


def _of_twin(twin, patch):
    """The same figure of the unplanted twin: shown, for the claim is about the model itself."""
    if twin is None:
        return "no unplanted twin, or not valid there"
    return twin.mean_asymmetry(patch)


def _asymmetric(patches, patch):
    """The clean prompts whose noising and denoising differ most."""
    return patches.noising.largest(patches.difference(patch), "confirmation", 5)


def _shares(profiles):
    """The same figures as lines over layers, and as a heatmap."""
    title = "Share of LD clean - LD corrupt that a patched residual stream moves"
    layers = range(len(next(iter(profiles.values()))))
    return [
        CurvePanel(
            title=title,
            x="layer",
            y="share",
            series=[
                Series(name=name, x=list(layers), y=profile) for name, profile in profiles.items()
            ],
        ),
        GridPanel(
            title=title,
            x="direction, position",
            y="layer",
            columns=list(profiles),
            rows=[str(layer) for layer in layers],
            values=[[profile[layer] for profile in profiles.values()] for layer in layers],
        ),
    ]


def _judge_path(paths, layer, judge, *, floor=None, ceiling=None):
    if layer not in paths.receivers:
        judge(blocked(f"{head_name(paths.head)} has no path into layer {layer}, which comes first"))
        return
    what = f"share of {head_name(paths.head)} on its path into layer {layer}"
    profile = {}
    try:
        share = paths.mediated(layer)
        unit = "of the head's effect"
        if floor is not None:
            verdict = judge_above_floor(share, floor=paths.share(floor), what=what, unit=unit)
        else:
            ends = paths.share(ceiling), paths.share(-ceiling)
            verdict = judge_all_of(
                [
                    judge_below_ceiling(share, ceiling=ends[0], what=what, unit=unit),
                    judge_above_floor(share, floor=ends[1], what=what, unit=unit),
                ]
            )
        profile = {f"into layer {n}": value for n, value in paths.profile().items()}
    except RatioUndefined as refusal:
        verdict = blocked(f"{what}: {refusal}")
    judge(
        verdict,
        subject=head_name(paths.head),
        details=_share_details(profile, f"into layer {layer}"),
        panels=[_receivers(paths)] if profile else [],
        largest=paths.largest(paths.through(layer), "confirmation", 5),
        runs=paths.runs,
    )


def _share_details(profile, here):
    details = {"share by receiver": profile} if profile else {}
    if profile and profile[here] > 1:
        details["share above 1"] = "the other paths take back a part of what this one does"
    return details


def _receivers(paths):
    profile = paths.profile()
    return CurvePanel(
        title=f"Share of the effect of {head_name(paths.head)} on its direct path, by receiver",
        x="layer whose stream receives it",
        y="share",
        series=[Series(name="cut path", x=list(profile), y=list(profile.values()))],
    )
