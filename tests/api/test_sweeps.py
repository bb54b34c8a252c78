"""Run: pytest tests/api/test_sweeps.py"""

import numpy as np
import pandas
import pytest

from tinyablation.api.errors import ApiError
from tinyablation.heads import Head


@pytest.fixture(scope="module")
def sweep(model, tuples):
    return model.sweep(tuples)


@pytest.fixture(scope="module")
def sets(model, tuples):
    return model.ablate(tuples, "L0H7 L0H0", "L1H1+L0H7, L2H0", "L0H5")


def test_its_table_is_the_mean_of_its_rows(sweep, model):
    rows = sweep.rows
    clean = rows[rows["method"] == "none"].set_index("example")["logit_diff"]
    zeroed = rows[rows["head"] >= 0].set_index("example")
    delta = (zeroed["logit_diff"] - clean.reindex(zeroed.index)).groupby(
        [zeroed["layer"], zeroed["head"]]
    )
    table = sweep.table.set_index(["layer", "number"])
    assert len(table) == model.n_layers * model.n_heads == len(model.heads)
    assert np.abs(table["delta"] - delta.mean()).max() < 1e-12
    assert (table["low"] <= table["delta"]).all() and (table["delta"] <= table["high"]).all()
    assert list(table["head"])[:2] == ["L0H0", "L0H1"]
    assert sweep.clean == pytest.approx(clean.mean())


def test_the_planted_head_is_the_top_one(sweep):
    top = sweep.top(3)
    assert list(top.index) == [0, 1, 2] and top["head"][0] == "L0H7"
    assert top["delta"].is_monotonic_decreasing
    lowest = sweep.top(3, alternative="less")
    assert lowest["delta"].is_monotonic_increasing and lowest["delta"][0] < 0


def test_a_named_head_is_judged_by_all_prompts(sweep, tuples):
    verdict = sweep.verdict("L0H7")
    assert verdict.status == "supported" and verdict.effect.n == len(tuples)
    assert sweep.verdict(Head(0, 7)) == sweep.verdict((0, 7)) == sweep.verdict("0:7") == verdict
    assert sweep.verdict("L2H7").status == "refuted"
    assert sweep.verdict("L0H4", alternative="less").status == "supported"
    half = sweep.verdict("L0H7", split="confirmation")
    assert half.effect.n == len(tuples) // 2


def test_a_head_that_is_not_named_is_chosen_by_the_other_half(sweep):
    verdict = sweep.verdict()
    named = sweep.verdict("L0H7")
    assert verdict.subject == "L0H7" and verdict.status == "supported"
    # 98 %, because the halves may choose the same head by chance.
    assert verdict.effect.high - verdict.effect.low > named.effect.high - named.effect.low


def test_only_some_layers(model, tuples, sweep):
    first = model.sweep(tuples, layers=[0])
    assert first.heads == tuple(Head(0, head) for head in range(model.n_heads))
    own = sweep.table[sweep.table["layer"] == 0]
    # Packed in other batches: float32 sums in another order.
    assert np.abs(first.table["delta"] - own["delta"]).max() < 1e-4
    with pytest.raises(ApiError, match="L1H0 is not in a layer that this sweep measured"):
        first.verdict("L1H0")


def test_a_set_is_zeroed_together(sets, sweep):
    table = sets.table.set_index("heads")
    assert list(table.index) == ["L0H0 L0H7", "L0H7 L1H1 L2H0", "L0H5"]
    assert list(table["size"]) == [2, 3, 1]
    alone = sweep.table.set_index("head")["delta"]
    assert table.loc["L0H0 L0H7", "alone"] == pytest.approx(alone["L0H0"] + alone["L0H7"], abs=1e-4)
    assert table.loc["L0H5", "delta"] == pytest.approx(alone["L0H5"], abs=1e-4)
    together = table["delta"] - table["alone"]
    assert np.abs(together - table["cooperation"]).iloc[:2].max() < 1e-9
    assert pandas.isna(table.loc["L0H5", "cooperation"])
    # The planted head's effect is there, and what the others do comes on top of it.
    assert sets.verdict("L0H7 L0H0").subject == "L0H0 L0H7"
    assert sets.verdict().status == "supported"
    assert sets.verdict("L0H7").effect.estimate == pytest.approx(alone["L0H7"], abs=1e-4)


def test_sets_are_zeroed_in_the_engine_together(sets, model, tuples):
    """Against one prompt alone, by hooks of another code."""
    from tests.api.test_model import EXACT, PROJECTIONS, in_memory

    own, tokenizer = in_memory("tiny-gpt2")
    width = own.config.hidden_size // own.config.num_attention_heads
    prompt, target, foil = tuples[0]
    ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    right, wrong = (
        tokenizer(prompt + each, add_special_tokens=False)["input_ids"][-1]
        for each in (target, foil)
    )
    import torch

    handles = []
    for layer, head in ((0, 7), (1, 1), (2, 0)):

        def zero(module, arguments, head=head):
            z = arguments[0].clone()
            z[..., head * width : (head + 1) * width] = 0
            return (z,)

        projection = PROJECTIONS["tiny-gpt2"](own, layer)
        handles.append(projection.register_forward_pre_hook(zero))
    with torch.no_grad():
        logits = own(torch.tensor([ids])).logits[0, -1].double()
    rows = sets.rows
    cell = rows[(rows["clean"] == prompt) & (rows["heads"] == "0.7+1.1+2.0")]
    assert abs(cell["logit_diff"].item() - float(logits[right] - logits[wrong])) < EXACT


def test_prompts_that_the_model_does_not_answer_block_the_verdict(model, tuples):
    wrong = model.sweep([(prompt, foil, target) for prompt, target, foil in tuples])
    verdict = wrong.verdict("L0H7")
    assert verdict.status == "blocked" and verdict.effect is None
    assert "prompts is not valid for tiny-gpt2: two-way accuracy: 0" in verdict.reason
    assert len(wrong.table) == len(model.heads)  # the figures are there


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda sweep, sets, model, rows: sweep.top(0), "top(0): give 1 or more"),
        (lambda sweep, sets, model, rows: sweep.top(alternative="more"), "alternative 'more'"),
        (lambda sweep, sets, model, rows: sweep.verdict("L9H9"), "there is no head L9H9 in 4 lay"),
        (lambda sweep, sets, model, rows: sweep.verdict("seven"), "'seven' is not a head; write"),
        (lambda sweep, sets, model, rows: sweep.verdict(split="test"), "split 'test': "),
        (lambda sweep, sets, model, rows: sets.verdict("L3H3"), "L3H3: ablate() did not measure"),
        (lambda sweep, sets, model, rows: model.ablate(rows), "name at least one set of heads"),
        (lambda sweep, sets, model, rows: model.ablate(rows, ""), "'' names no heads"),
        (lambda sweep, sets, model, rows: model.ablate(rows, 7), "7 names no heads"),
        (lambda sweep, sets, model, rows: model.sweep(rows, layers=[4]), "layer 4: the model has"),
        (lambda sweep, sets, model, rows: model.sweep(rows, layers=[]), "layers is empty"),
    ],
)
def test_wrong_calls_are_said_in_one_line(sweep, sets, model, tuples, call, said):
    with pytest.raises(ApiError) as error:
        call(sweep, sets, model, tuples)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_notebooks_show_them(sweep, sets):
    assert "<td>L0H7</td>" in sweep._repr_html_() and "30" not in repr(sweep)
    assert "<td>L0H0 L0H7</td>" in sets._repr_html_() and "L0H5" in repr(sets)
    for each in (sweep, sets):
        assert each.plot()._repr_png_().startswith(b"\x89PNG")
    values = sweep.plot().axes[0].images[0].get_array()
    assert values.shape == (4, 8)
    assert values[0, 7] == pytest.approx(sweep.table["delta"][7])
