"""SmolLM2-135M through the API: the same by its id, as a GGUF file, as a folder and in memory.

Where it cannot be had, this is skipped on a person's machine and fails in CI (CI=true).
Run: pytest tests/api/test_pretrained.py
"""

import os

import numpy as np
import pytest
import torch

from tests.api.test_model import EXACT, alone
from tinyablation.api.model import load
from tinyablation.errors import WeightsMissing
from tinyablation.models.package import obtain

pytestmark = pytest.mark.slow

CITIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"}
PROMPTS = [
    (f"The capital of {country} is", f" {city}", f" {foil}")
    for (country, city), foil in zip(
        CITIES.items(), [*list(CITIES.values())[1:], "Paris"], strict=True
    )
]


@pytest.fixture(scope="module")
def by_id():
    try:
        return load("smollm2-135m")
    except WeightsMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def figures(by_id):
    return by_id.sweep(PROMPTS, layers=[0]).rows


def test_a_sweep_is_what_hooks_find_on_each_prompt_alone(by_id, figures):
    loaded = by_id.bench.model
    projection = loaded.model.model.layers[0].self_attn.o_proj
    moved = []
    for prompt, target, foil in PROMPTS:
        ids = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = ids if loaded.bos_id is None else [loaded.bos_id, *ids]
        right, wrong = (
            loaded.tokenizer(prompt + answer, add_special_tokens=False)["input_ids"][-1]
            for answer in (target, foil)
        )
        own = figures[figures["clean"] == prompt].set_index("intervention")["logit_diff"]
        for head in (0, 7):
            width = loaded.model.config.head_dim
            logits = alone(loaded.model, projection, ids, head, width)
            expected = float(logits[right] - logits[wrong])
            assert abs(own[f"zero:0.{head}"] - expected) < EXACT
            moved.append(abs(expected - own["baseline"]))
    assert max(moved) > 0.1


@pytest.mark.parametrize("way", ["a GGUF file", "a folder", "in memory"])
def test_it_is_the_same_model_however_it_is_given(by_id, figures, way):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = by_id.bench.facts.folder
    if way == "in memory":
        own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        found = load(own, tokenizer=AutoTokenizer.from_pretrained(folder))
    else:
        entry = by_id.bench.entry
        found = load(folder if way == "a folder" else obtain(entry.id, entry.package))
    rows = found.sweep(PROMPTS, layers=[0]).rows
    assert np.array_equal(rows["logit_diff"], figures["logit_diff"])
