"""Run: pytest tests/api/test_model.py"""

import gc
import shutil
from pathlib import Path

import pandas
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.api.conftest import ORGANISMS, ROOT
from tests.gguf_writing import write_gguf
from tinyablation.api.errors import ApiError
from tinyablation.api.model import load
from tinyablation.api.prompts import Prompts
from tinyablation.corpora.examples import CorpusError
from tinyablation.errors import ModelChanged, TinyAblationError, WeightsMissing
from tinyablation.models.registry import RegistryError

EXACT = 1e-4  # logits, against one prompt alone
# Where the heads of a layer are put together, by model: its output projection.
PROJECTIONS = {
    "tiny-gpt2": lambda model, layer: model.transformer.h[layer].attn.c_proj,
    "tiny-llama": lambda model, layer: model.model.layers[layer].self_attn.o_proj,
}


def in_memory(name: str):
    folder = ORGANISMS / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def alone(model, projection, ids, head, width) -> torch.Tensor:
    """The last logits of one prompt by itself, a head's slice of the projection's input zeroed."""

    def zero(module, arguments):
        z = arguments[0].clone()
        z[..., head * width : (head + 1) * width] = 0
        return (z,)

    handle = projection.register_forward_pre_hook(zero)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    handle.remove()
    return logits


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_sweep_is_what_hooks_find_on_each_prompt_alone(name, tuples):
    own, tokenizer = in_memory(name)
    few = tuples[:6]
    found = load(ORGANISMS / name)
    rows = found.sweep(few).rows
    width = own.config.hidden_size // own.config.num_attention_heads
    apart, moved = [], []
    for prompt, target, foil in few:
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        answers = [
            tokenizer(prompt + answer, add_special_tokens=False)["input_ids"][-1]
            for answer in (target, foil)
        ]
        clean = rows[(rows["clean"] == prompt) & (rows["method"] == "none")]["logit_diff"].item()
        for layer, head in ((0, 0), (0, 7), (1, 3), (found.n_layers - 1, 5)):
            logits = alone(own, PROJECTIONS[name](own, layer), ids, head, width)
            expected = float(logits[answers[0]] - logits[answers[1]])
            cell = rows[
                (rows["clean"] == prompt) & (rows["layer"] == layer) & (rows["head"] == head)
            ]
            apart.append(abs(cell["logit_diff"].item() - expected))
            moved.append(abs(expected - clean))
    assert max(apart) < EXACT
    assert max(moved) > 0.1  # the hook does something


def test_a_model_in_memory_is_measured_as_its_folder_is(model, tuples):
    own, tokenizer = in_memory("tiny-gpt2")
    own.train()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    found = load(own, tokenizer=tokenizer, name="tiny-gpt2", bos=True)
    few = tuples[:6]
    pandas.testing.assert_frame_equal(
        found.sweep(few).rows, model.sweep(few).rows, check_exact=True
    )
    assert own.training and all(p.requires_grad for p in own.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


def test_a_model_in_half_precision_is_widened(tuples):
    own, tokenizer = in_memory("tiny-llama")
    found = load(own.to(torch.bfloat16), tokenizer=tokenizer)
    assert found.name.startswith("tiny-llama-") and found.bench.dtype == "float32"
    assert found.check(tuples).ok


def test_a_gguf_file_is_measured(tmp_path):
    """Its tokenizer, written for tests, knows letters; its weights are those of the folder."""
    found = load(write_gguf(ORGANISMS / "tiny-llama", tmp_path / "tiny.F16.gguf"), bos=True)
    letters = [("ab", "c", "d"), ("ef", "g", "h")]
    rows = found.sweep(Prompts.of(letters, strict=False), layers=[0]).rows
    own, _ = in_memory("tiny-llama")
    width = own.config.hidden_size // own.config.num_attention_heads
    encode, bos = found.bench.model.tokenizer, found.bench.model.bos_id
    for prompt, target, foil in letters:
        ids, right, wrong = (
            encode(text, add_special_tokens=False)["input_ids"] for text in (prompt, target, foil)
        )
        logits = alone(own, PROJECTIONS["tiny-llama"](own, 0), [bos, *ids], 2, width)
        cell = rows[(rows["clean"] == prompt) & (rows["head"] == 2)]
        assert abs(cell["logit_diff"].item() - float(logits[right[0]] - logits[wrong[0]])) < EXACT


def test_hooks_would_be_lost_and_are_refused():
    own, tokenizer = in_memory("tiny-gpt2")
    handle = own.transformer.h[1].register_forward_hook(lambda *_: None)
    with pytest.raises(TinyAblationError, match=r"transformer\.h\.1 has forward hooks"):
        load(own, tokenizer=tokenizer)
    handle.remove()
    inner = own.transformer.h[0].mlp.forward
    own.transformer.h[0].mlp.forward = lambda states: 0.5 * inner(states)
    with pytest.raises(TinyAblationError, match="something of it is not in its weights"):
        load(own, tokenizer=tokenizer)


def test_a_tokenizer_that_is_not_what_it_was_once_saved_is_refused(monkeypatch):
    own, tokenizer = in_memory("tiny-gpt2")
    _, other = in_memory("tiny-gpt2")
    other.add_tokens(["Wolverhampton"])
    monkeypatch.setattr(tokenizer, "save_pretrained", other.save_pretrained)
    with pytest.raises(TinyAblationError, match="splits text in another way"):
        load(own, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("given", "options", "error", "said"),
    [
        ("tiny-gtp2", {}, ApiError, "did you mean 'tiny-gpt2'"),
        ("./nowhere", {}, RegistryError, "no such folder"),
        (ROOT / "docs", {}, TinyAblationError, "docs"),
        (5, {}, ApiError, "int is no model; give a path, an id or a model"),
        ("tiny-gpt2", {"tokenizer": object()}, ApiError, "tokenizer= is for models in memory"),
        ("tiny-gpt2", {"seed": -1}, ApiError, "seed -1: give 0 or more"),
        ("tiny-gpt2", {"device": "gpu"}, TinyAblationError, "no device is called 'gpu'"),
        (
            "tiny-gpt2",
            {"dtype": "float12"},
            TinyAblationError,
            "dtype 'float12': did you mean 'float32'",
        ),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(given, options, error, said):
    with pytest.raises(error) as raised:
        load(given, **options)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_model_in_memory_needs_its_tokenizer():
    own, _ = in_memory("tiny-gpt2")
    with pytest.raises(TinyAblationError, match="give its tokenizer"):
        load(own)


def test_what_was_measured_is_read_again(tuples, tmp_path, monkeypatch):
    few = tuples[:4]
    first = load(ORGANISMS / "tiny-gpt2", store=tmp_path).sweep(few)
    again = load(ORGANISMS / "tiny-gpt2", store=tmp_path)
    found = again.sweep(few)
    pandas.testing.assert_frame_equal(first.rows, found.rows, check_exact=True)
    assert "model" not in again.bench.__dict__  # no weights were loaded
    assert found.effects.runs == tuple(path.name for path in tmp_path.glob("tiny-gpt2-*"))


def test_weights_that_change_meanwhile_are_not_measured(tuples, tmp_path):
    folder = shutil.copytree(ORGANISMS / "tiny-gpt2", tmp_path / "model")
    found = load(folder)
    found.sweep(tuples[:4])
    (path,) = folder.glob("*.safetensors")
    other = bytearray(path.read_bytes())
    other[-1] ^= 1
    path.unlink()
    path.write_bytes(other)
    with pytest.raises(ModelChanged):
        found.sweep(tuples[4:8])


def test_two_sets_of_prompts_of_one_name_are_two(model, tuples):
    one, other = model.sweep(tuples[:4]), model.sweep(tuples[4:8])
    assert set(one.rows["clean"]) & set(other.rows["clean"]) == set()
    assert model.sweep(tuples[:4]).effects is one.effects  # and each is kept


def test_a_temporary_store_goes_with_the_model(tuples):
    made = load(ORGANISMS / "tiny-gpt2")
    folder = Path(made.bench.store.root).parent
    assert folder.is_dir()
    made.release()
    del made
    gc.collect()
    assert not folder.exists()


def test_what_was_measured_of_a_model_outlives_it(rows):
    """`load(...).sweep(...)` leaves no one to hold the model: its copy is needed all the same."""
    own, tokenizer = in_memory("tiny-gpt2")
    made = load(own, tokenizer=tokenizer)
    folder = Path(made.bench.store.root).parent
    sweep = made.sweep(rows[:12], layers=[0])
    del made
    gc.collect()
    assert sweep.verdict("L0H0").status == "refuted"  # measures the corrupt prompts
    del sweep
    gc.collect()
    assert not folder.exists()


def test_a_misspelt_condition_is_said(model):
    with pytest.raises(CorpusError, match="neither a condition nor a file; did you mean 'facts'"):
        model.sweep("fact")


def test_answers_of_several_tokens_are_refused(model):
    rows = [
        ("In short, the capital of Russia is known to be", " Moscow Moscow", " Baghdad"),
        ("In short, the capital of Iraq is known to be", " Baghdad", " Moscow"),
    ]
    with pytest.raises(CorpusError, match="line 1: an answer is 2 tokens"):
        model.check(rows)


def test_prompts_of_one_cluster_are_refused(model, tuples):
    with pytest.raises(CorpusError, match="form one cluster"):
        model.sweep(tuples[:1])


def test_a_missing_folder_of_weights_is_said(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(WeightsMissing):
        load(tmp_path)
