"""What the models' heads do is what their designs say, by the transformers library alone.

Run: pytest tests/known_models/test_hand_set.py
"""

import pytest
import torch

from fixtures.calibration.models import tokenizer
from tests.known_models.hand_set import SIZE, build
from tests.known_models.models import MODELS
from tinyablation.heads import Head

GAINS = {Head(0, 0): -0.66, Head(0, 1): -0.12, Head(0, 2): -0.1, Head(0, 6): 0.0, Head(2, 4): 0.0}

# What heads pass on of one another's outputs in all, as a share of an effect; and their own noise,
# as a share of LD.
LEAKED, NOISE = 0.15, 0.03


def logit_differences(model, examples, *zeroed):
    """[n_examples] logit of the target minus that of the foil, with these heads zeroed."""
    words, found = tokenizer(), []
    kept = {}
    for layer, head in zeroed:
        weight = model.model.layers[layer].self_attn.o_proj.weight
        kept.setdefault(layer, weight.clone())
        weight[:, head * SIZE : (head + 1) * SIZE] = 0.0
    for example in examples:
        ids = [words.bos_token_id, *words(example.clean, add_special_tokens=False)["input_ids"]]
        logits = model(torch.tensor([ids])).logits[0, -1]
        target, foil = (
            words(answer, add_special_tokens=False)["input_ids"][0]
            for answer in (example.target, example.foil)
        )
        found.append(float(logits[target] - logits[foil]))
    for layer, weight in kept.items():
        model.model.layers[layer].self_attn.o_proj.weight.copy_(weight)
    return torch.tensor(found)


@pytest.fixture(scope="module")
def facts(shelf):
    corpus, _ = shelf.bench("suppressors").corpus("facts")
    return corpus.examples[::8]


@torch.no_grad()
def test_a_head_takes_of_the_logit_difference_what_its_gain_says(facts):
    model = build(MODELS["suppressors"].design)
    clean = logit_differences(model, facts)
    for heads in [[head] for head in GAINS] + [[Head(0, 0), Head(0, 1)], list(GAINS)]:
        deltas = logit_differences(model, facts, *heads) - clean
        gain = sum(GAINS[head] for head in heads)
        assert deltas.mean() / clean.mean() == pytest.approx(-gain, abs=NOISE, rel=LEAKED)
        assert (deltas + gain * clean).abs().mean() < (LEAKED * abs(gain) + NOISE) * clean.mean()


@torch.no_grad()
def test_lengths_along_one_direction_add_up(facts):
    model = build(MODELS["conspirators"].design)
    heads = [Head(0, 0), Head(0, 1), Head(0, 2)]
    clean = logit_differences(model, facts).mean()
    for count, times in ((1, (18 / 16) ** 2), (3, (18 / 12) ** 2)):
        without = logit_differences(model, facts, *heads[:count]).mean()
        assert without / clean == pytest.approx(times, rel=0.05)


def test_the_bench_measures_what_the_model_does(shelf, facts):
    measured = shelf.measured("suppressors", "facts")
    head = Head(0, 0)
    table = measured.sweep.single
    clean = by_prompt(measured.sweep.baseline())
    ablated = by_prompt(table[(table["layer"] == head.layer) & (table["head"] == head.head)])
    compared = [each for each in facts if (each.fact_id, each.template_id) in clean]
    assert len(compared) > 20
    with torch.no_grad():
        model = build(MODELS["suppressors"].design)
        for found, heads in ((clean, []), (ablated, [head])):
            expected = logit_differences(model, compared, *heads).tolist()
            got = [found[each.fact_id, each.template_id] for each in compared]
            assert got == pytest.approx(expected, abs=1e-3)


def by_prompt(rows):
    return {(row.fact_id, row.template_id): row.logit_diff for row in rows.itertuples()}


@pytest.mark.parametrize("name", ["suppressors", "gate", "binder"])
def test_the_same_design_is_the_same_model(name):
    first, again = (build(MODELS[name].design).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
