"""Run: pytest tests/api/test_patches.py"""

import numpy as np
import pytest

from tinyablation.api.errors import ApiError
from tinyablation.corpora.examples import CorpusError


@pytest.fixture(scope="module")
def patches(model, rows):
    return model.patch(rows)


@pytest.fixture(scope="module")
def paths(model, tuples):
    return model.path(tuples, "L0H7")


def test_the_shares_are_those_of_its_rows(patches, model):
    table = patches.table.set_index(["position", "layer"])
    assert len(table) == 2 * model.n_layers
    rows = patches.rows[patches.rows["split"] == "confirmation"]
    sides = {way: rows[rows["direction"] == way] for way in ("denoising", "noising")}
    clean, corrupt = (
        each[each["method"] == "none"].set_index("example")["logit_diff"]
        for each in (sides["noising"], sides["denoising"])
    )
    for where in ("last", "subject"):
        for layer in range(model.n_layers):
            for way, unhooked, sign in (("denoising", corrupt, 1), ("noising", clean, -1)):
                label = f"residual:L{layer:02d}w0:{where}:pair"
                own = sides[way][sides[way]["intervention"] == label]
                moved = sign * (own.set_index("example")["logit_diff"] - unhooked)
                share = moved.sum() / (clean - corrupt).sum()
                assert table.loc[(where, layer), way] == pytest.approx(share, abs=1e-9)


def test_the_words_that_differ_hold_all_of_the_answer_at_first(patches):
    first = patches.table.set_index(["position", "layer"]).loc[("subject", 0)]
    assert first["denoising"] == pytest.approx(1, abs=1e-4)
    assert patches.table.set_index(["position", "layer"]).loc[("last", 0)]["denoising"] < 0.01


def test_its_verdict_is_about_the_layer_that_differs_most(patches):
    verdict = patches.verdict()
    assert verdict.split == "confirmation" and verdict.unit == "of LD clean - LD corrupt"
    named = patches.verdict(2, position="last")
    assert named.subject == "layer 2, last"
    assert named.effect.estimate == pytest.approx(
        patches.table.set_index(["position", "layer"]).loc[("last", 2), "asymmetry"], abs=1e-9
    )


def test_paths_are_cut_one_by_one(paths, model):
    table = paths.table
    assert list(table["layer"]) == [1, 2, 3, 4]
    assert np.isfinite(table[["delta", "low", "high"]].to_numpy()).all()
    sweep = model.sweep([tuple(row) for row in _prompts(paths)])
    whole = sweep.table.set_index("head").loc["L0H7", "delta"]
    assert paths.total == pytest.approx(whole, abs=1e-4)
    verdict = paths.verdict(2)
    share = table.set_index("layer").loc[2, "delta"] / paths.total
    assert (
        verdict.effect.estimate == pytest.approx(share) and verdict.subject == "L0H7 into layer 2"
    )
    assert verdict.status == "refuted"


def _prompts(paths):
    rows = paths.rows[paths.rows["method"] == "none"].sort_values("example")
    return rows[["clean", "target", "foil"]].itertuples(index=False, name=None)


def test_a_head_without_an_effect_has_no_path_to_judge(model, tuples):
    verdict = model.path(tuples, "L2H7").verdict(3)
    assert verdict.status == "blocked" and "on its path into layer 3" in verdict.reason


def test_prompts_without_counterparts_are_not_patched(model, tuples):
    with pytest.raises(ApiError, match=r"prompts: no corrupt prompts.*give \(prompt, target"):
        model.patch(tuples)


def test_pairs_of_unequal_length_are_not_patched(model, rows):
    longer = [row | {"corrupt": f"Well. {row['corrupt']}"} for row in rows]
    with pytest.raises(CorpusError, match="it has no aligned pairs"):
        model.patch(longer)


def test_wrong_calls_are_said_in_one_line(patches, paths):
    for call, said in (
        (lambda: patches.verdict(9), "layer 9: the model has layers 0 to 3"),
        (lambda: patches.verdict(position="first"), "position 'first': "),
        (lambda: paths.verdict(0), "layer 0: paths of this head lead to 1 to 4"),
        (lambda: paths.verdict(2, split="test"), "split 'test': "),
    ):
        with pytest.raises(ApiError) as error:
            call()
        assert said in str(error.value) and "\n" not in str(error.value)


def test_notebooks_show_them(patches, paths):
    assert "<td>subject</td>" in patches._repr_html_() and "4 layers" in repr(patches)
    assert "<th>delta</th>" in paths._repr_html_() and "L0H7" in repr(paths)
    for each in (patches, paths):
        assert each.plot()._repr_png_().startswith(b"\x89PNG")
    assert len(patches.plot().axes[0].lines) == 5  # zero, and both directions at both positions
