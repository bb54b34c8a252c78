"""Interventions are canonical, hashable and named.

Run: pytest tests/interventions/test_interventions.py
"""

import math
import re
from typing import Any

import pytest

from tinyablation.engine.tables import COLUMNS, ENGINE_COLUMNS
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.interventions import (
    METHODS,
    AblateHeads,
    Intervention,
    KeepHeads,
    PatchHeads,
    PatchMLP,
    PatchPath,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.interventions.restoration import TOKENS, AddNoise, RestoreState
from tinyablation.interventions.sites import (
    BASELINE_COLUMNS,
    ActivationSource,
    InterventionError,
    Part,
    Site,
)

ALL: list[Intervention] = [
    AblateHeads(((0, 2),)),
    ScaleHeads(((0, 2),), 0.5),
    PatchResidual(3),
    PatchHeads(((0, 2), (0, 4))),
    PatchMLP(3, 1, "subject", "other"),
    PatchPath(((0, 2),), 11),
    Steer(0, "truth", -0.5),
    AddNoise(),
    RestoreState(1, 2.0, "mlp", 3, 1, "last"),
    KeepCopySuppression(((10, 7),)),
    KeepCopySuppression(((10, 7),), 0.1, direct=True),
    KeepHeads(((0, 2),), "zero", ((0, 4),)),
]


def test_labels_name_method_and_heads() -> None:
    assert AblateHeads(((0, 2), (0, 4))).label == "zero:0.2+0.4"
    assert AblateHeads(((1, 10),), "zero_folded").label == "zero_folded:1.10"
    assert ScaleHeads(((1, 3),), 0.5).label == "scale0.5:1.3"
    assert ScaleHeads(((1, 3),), 2).label == ScaleHeads(((1, 3),), 2.0).label == "scale2.0:1.3"
    assert ScaleHeads(((1, 3),), -0.0).label == "scale0.0:1.3"


def test_labels_of_many_heads_are_short_and_none_like_another() -> None:
    many = tuple((layer, head) for layer in range(4) for head in range(9))
    labels = {
        AblateHeads(many).label,
        AblateHeads(many[1:]).label,
        AblateHeads(many[:-1]).label,
        KeepHeads(((9, 0),), "zero", many).label,
    }
    assert len(labels) == 4 and all(re.fullmatch(r"[a-z:-]+3[56]-[0-9a-f]{8}", x) for x in labels)
    assert AblateHeads(many[:32]).label.count("+") == 31


def test_equal_interventions_are_equal_and_hash_alike() -> None:
    assert len({AblateHeads(((0, 2),)), AblateHeads(((0, 2),), "zero")}) == 1
    assert len({AblateHeads(((0, 2),), method) for method in METHODS}) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((), "non-empty"),
        ([(0, 1)], "non-empty tuple"),
        (((0, 1), (0, 1)), "sorted and distinct"),
        (((0, 2), (0, 1)), "sorted and distinct"),
        (((0, -1),), "not a head"),
        ((0, 1), "not a head"),
        (((0, True),), "not a head"),
        (((0, 1.0),), "not a head"),
    ],
)
def test_heads_that_are_not_canonical_are_refused(heads: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        AblateHeads(heads)
    with pytest.raises(InterventionError, match=message):
        ScaleHeads(heads, 0.5)


def test_unknown_methods_and_scales_are_refused() -> None:
    with pytest.raises(InterventionError, match="'noise'; choose one of zero, zero_folded"):
        AblateHeads(((0, 1),), "noise")  # type: ignore[arg-type]
    for scale in (math.nan, math.inf, "1", True):
        with pytest.raises(InterventionError, match="scale must be"):
            ScaleHeads(((0, 1),), scale)  # type: ignore[arg-type]


def test_labels_of_patches_paths_and_steering() -> None:
    assert PatchResidual(3, 1).label == "residual:L03w1:last:pair"
    assert PatchHeads(((0, 2), (0, 4))).label == "heads:0.2+0.4:all:pair"
    assert PatchMLP(3, positions="subject", donor="self").label == "mlp:L03w0:subject:self"
    assert PatchPath(((0, 2),), 11).label == "path:0.2:L11:zero"
    assert Steer(0, "truth", 1).label == "steer:L00:truth:1.0"
    assert Steer(0, "truth", -0.0).label == "steer:L00:truth:0.0"
    # Fit for a table, a test id and a shell; and none like another.
    assert all(re.fullmatch(r"[A-Za-z0-9:.+_-]+", i.label) for i in ALL)


def test_different_interventions_have_different_labels() -> None:
    from itertools import product

    places = list(product(("all", "last", "subject"), ("pair", "self", "other")))
    many: list[Intervention] = [
        *ALL,
        *(PatchResidual(layer, w, *p) for layer in (1, 12) for w in (0, 2) for p in places),  # type: ignore[arg-type]
        *(PatchMLP(layer, w, *p) for layer in (1, 12) for w in (0, 2) for p in places),  # type: ignore[arg-type]
        *(PatchHeads(heads, *p) for heads in (((1, 2),), ((1, 2), (1, 3))) for p in places),  # type: ignore[arg-type]
        *(PatchPath(((1, n),), layer, "mean") for n in (1, 11) for layer in (2, 12)),
        *(Steer(1, name, scale) for name in ("a", "b") for scale in (0.5, -0.5)),
    ]
    assert len({i.label for i in many}) == len(set(many)) == len(many)


def test_every_kind_says_what_tables_need() -> None:
    for intervention in ALL:
        columns = intervention.columns
        assert set(columns._fields) <= set(ENGINE_COLUMNS)
        assert columns.method and columns.positions in ("all", "last", "subject", *TOKENS)
        for name, value in columns._asdict().items():
            kind = {"string": str, "int64": int, "float64": float}[COLUMNS[name].dtype]
            assert isinstance(value, tuple if name == "heads" else kind)
    granularities = {i.columns.granularity for i in ALL}
    assert granularities == {"head", "residual", "mlp", "path", "steer", "embedding"}
    assert BASELINE_COLUMNS.granularity == BASELINE_COLUMNS.positions == ""
    # The layer of a path is its receiver, so a head beside it would read as one of that layer.
    path = PatchPath(((0, 2),), 11).columns
    assert (path.layer, path.head, path.heads) == (11, -1, ((0, 2),))
    assert PatchHeads(((1, 2),)).columns[3:5] == (1, 2)
    assert PatchHeads(((1, 2), (1, 3))).columns[3:5] == (-1, -1)


def test_sites_are_where_a_forward_pass_comes_to_them() -> None:
    assert PatchResidual(3, 1).sites(4) == (Site(2, Part.STREAM), Site(3, Part.STREAM))
    assert PatchMLP(0, 1).sites(4) == (Site(0, Part.MLP), Site(1, Part.MLP))
    assert PatchPath(((0, 2),), 4).sites(4) == (Site(4, Part.STREAM),)
    assert Steer(2, "truth", 1).sites(4) == (Site(2, Part.ATTENTION),)
    heads = ((0, 1), (0, 2), (2, 1))
    assert PatchHeads(heads).sites(4) == (Site(0, Part.ATTENTION), Site(2, Part.ATTENTION))
    assert Site(0, Part.MLP) < Site(1, Part.STREAM) < Site(1, Part.ATTENTION) < Site(1, Part.MLP)


def test_loans_name_the_lender() -> None:
    assert PatchMLP(3, 1, "subject", "other").source == ActivationSource("other", "subject")
    assert AblateHeads(((0, 1),), "resample").source == ActivationSource("resample", "")
    assert PatchPath(((0, 1),), 2).source == Steer(0, "truth", 1).source == ActivationSource("", "")


@pytest.mark.parametrize(
    ("intervention", "plain"),
    [
        (PatchResidual(1, 1), PatchResidual(2)),
        (PatchResidual(3, 2, "all"), PatchResidual(3, 0, "all")),
        (PatchResidual(1, 1, "subject"), PatchResidual(0, 2, "subject")),
        (PatchResidual(0, 2, "subject"), PatchResidual(0, 2, "subject")),
        (PatchResidual(1, 5, "subject"), PatchResidual(0, 3, "subject")),
        (PatchResidual(2, 1, "subject"), PatchResidual(3, 2, "subject")),
        (PatchMLP(0, 9), PatchMLP(0, 3)),
        (PatchMLP(2, 2), PatchMLP(0, 3)),
        (PatchMLP(3, 0, "all"), PatchMLP(3)),
        (PatchMLP(2, 0, "all"), PatchMLP(2, 0, "all")),
        (PatchHeads(((3, 1),)), PatchHeads(((3, 1),), "last")),
        (PatchHeads(((2, 1), (3, 1))), PatchHeads(((2, 1), (3, 1)))),
        (ScaleHeads(((0, 1),), 1.0), None),
        (ScaleHeads(((0, 1),), 0.0), AblateHeads(((0, 1),))),
        (Steer(0, "truth", 0.0), None),
        # The sham is never taken for the baseline.
        (PatchHeads(((0, 1),), donor="self"), PatchHeads(((0, 1),), donor="self")),
        (PatchResidual(2, 0, "all", "self"), PatchResidual(2, 0, "all", "self")),
    ],
)
def test_what_is_the_same_by_arithmetic_in_four_layers(
    intervention: Intervention, plain: Intervention | None
) -> None:
    assert intervention.plain(4) == plain
    if plain is not None:
        assert plain.plain(4) == plain


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (PatchResidual, {"layer": -1}, "layer must be a whole number"),
        (PatchResidual, {"layer": 1.0}, "layer must be a whole number"),
        (PatchMLP, {"layer": True}, "layer must be a whole number"),
        (PatchMLP, {"layer": 1, "window": -1}, "window must be a whole number"),
        (PatchResidual, {"layer": 1, "positions": "first"}, "unknown positions 'first'; choose"),
        (PatchHeads, {"heads": ((0, 1),), "donor": "resample"}, "unknown donor 'resample'"),
        (PatchHeads, {"heads": ()}, "non-empty"),
        (PatchPath, {"heads": ((0, 1), (1, 1)), "layer": 2}, "heads of one layer"),
        (PatchPath, {"heads": ((1, 1),), "layer": 1}, "leads upwards"),
        (PatchPath, {"heads": ((1, 1),), "layer": 0}, "leads upwards"),
        (PatchPath, {"heads": ((1, 1),), "layer": 2, "method": "resample"}, "unknown path method"),
        (Steer, {"layer": 0, "direction": "", "scale": 1}, "cannot name a direction"),
        (Steer, {"layer": 0, "direction": "a:b", "scale": 1}, "cannot name a direction"),
        (Steer, {"layer": 0, "direction": "a", "scale": math.nan}, "scale must be finite"),
        (Steer, {"layer": -1, "direction": "a", "scale": 1}, "layer must be a whole"),
    ],
)
def test_patches_that_mean_nothing_are_refused(kind: Any, fields: Any, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        kind(**fields)


def test_copy_suppression_is_one_heads_and_keeps_a_share() -> None:
    assert KeepCopySuppression(((10, 7),)).label == "copy_suppression0.05:10.7"
    assert KeepCopySuppression(((10, 7),), direct=True).sites(12) == (Site(12, Part.STREAM),)
    with pytest.raises(InterventionError, match="one head keeps"):
        KeepCopySuppression(((0, 1), (0, 2)))
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(InterventionError, match="share must be"):
            KeepCopySuppression(((0, 1),), share)
