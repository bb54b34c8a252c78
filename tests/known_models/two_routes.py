"""A model whose answers take two routes to the last token, early and late; weights set by hand.

A Llama of 8 layers with two heads each. The first heads of layers 0 to 3 each copy a quarter of
what is known of the prompt's subject to the token that they stand on, into `early`; those of layers
4 to 7 into `late`. The MLP of the last layer writes the answer: the product of both, so that each
is necessary and none sufficient; or early + late - early x late, so that each is sufficient and
none necessary. With a share a of `early` and b of `late` there (before the layer that is patched):

                        noising       denoising    noising - denoising
    product             1 - (1 - a)   0 * a        a          (before layer 4)
                        1             b            1 - b      (from layer 4 on)
    the other           the same with both exchanged: at most 0, least at layer 4

Every token's embedding has nearly one length, NORM, long against all that is written, so that the
norms divide by almost the same number everywhere.

The second head of each layer can pass a little of what is known from word to word, by `aside`:
every word looks at the subjects and colons before it. So a subject that is named again after a
colon reads there what was known of the first, and a window that keeps it replaced does not do what
one of its layers does alone.

If the routes are narrow, one layer copies everything early, and the next one everything late:
between them alone does noising destroy more than denoising restores.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fixtures.calibration.world import knowledge, tokenizer
from fixtures.organisms.families import CONTEXT

LAYERS = 8
EARLY = range(LAYERS // 2)
NORM = 40.0
READ = 6.0  # logits of an answer's dimension: LD comes to some 6
FOUND, SUNK = 24.0, 12.0  # attention scores of a subject, and of the first token if there is none
STEEP = 20.0  # silu(STEEP x) / STEEP is x, for what is written
SPREAD = 0.1  # subjects are known by 1 +- this, drawn: figures must vary for an interval
PASSED = 0.25  # of what the second heads read
ASIDE = 0.02  # of an answer's logit, what was passed
ONE, FACT_KEY, SINK_KEY, COLON_KEY, FILLER = range(5)

Needs = Literal["both", "either"]


def shares(*, narrow: bool) -> Tensor:
    """[layer] what a layer copies of all that its route does."""
    if not narrow:
        return torch.full((LAYERS,), 1 / len(EARLY))
    copied = torch.zeros(LAYERS)
    copied[[EARLY.stop - 1, EARLY.stop]] = 1.0
    return copied


def save(needs: Needs, folder: Path, *, narrow: bool = False, passed: bool = False) -> Path:
    """The model as a Hugging Face folder, with the embedded models' tokenizer.

    passed: whether the second heads do anything.
    """
    made = _build(needs, shares(narrow=narrow), PASSED if passed else 0.0)
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def _build(needs: Needs, copied: Tensor, passed: float) -> LlamaForCausalLM:
    facts = [
        (fact.subject, fact.answer)
        for name in knowledge().relations
        for fact in knowledge().facts(name)
        if name != "sum"  # subjects of several tokens
    ]
    answers = list(dict.fromkeys(answer for _, answer in facts))
    n = len(answers)
    known, early, late, aside, out = (slice(5 + n * k, 5 + n * (k + 1)) for k in range(5))
    size = n + n % 2  # rotary embeddings turn pairs
    width = 6 + 5 * n - n % 2  # even: of two heads
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        head_dim=size,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=n,
        max_position_embeddings=CONTEXT,
        bos_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    embedding = model.get_input_embeddings().weight
    unembedding = model.get_output_embeddings().weight
    drawn = 1 + SPREAD * (
        2 * torch.rand(len(facts), generator=torch.Generator().manual_seed(0)) - 1
    )
    embedding[:, ONE] = 1.0
    for (subject, answer), strength in zip(facts, drawn, strict=True):
        embedding[_token(subject), FACT_KEY] = 1.0
        embedding[_token(subject), known.start + answers.index(answer)] = strength
        unembedding[_token(answer), out.start + answers.index(answer)] = READ
        unembedding[_token(answer), aside.start + answers.index(answer)] = READ * ASIDE
    embedding[words.eos_token_id, SINK_KEY] = 1.0
    embedding[words.convert_tokens_to_ids(":"), COLON_KEY] = 1.0
    embedding[:, FILLER] = (NORM**2 - embedding.square().sum(1)).sqrt()
    unit = width**0.5 / NORM  # what the norm makes of 1
    unembedding /= unit
    everything = torch.eye(n)
    for layer, block in enumerate(model.model.layers):
        attention = block.self_attn
        slowest = size - 1  # what rotary embeddings turn least
        attention.q_proj.weight[slowest, ONE] = size**0.5 / unit**2
        attention.k_proj.weight[slowest, FACT_KEY] = FOUND
        attention.k_proj.weight[slowest, SINK_KEY] = SUNK
        attention.v_proj.weight[:n, known] = everything / unit
        route = early if layer in EARLY else late
        attention.o_proj.weight[route, :n] = copied[layer] * everything
        if needs == "either":
            attention.o_proj.weight[out, :n] = copied[layer] * everything
        second = slice(size, size + n)
        attention.q_proj.weight[size + slowest, ONE] = size**0.5 / unit**2
        attention.k_proj.weight[size + slowest, [FACT_KEY, COLON_KEY]] = FOUND
        attention.k_proj.weight[size + slowest, SINK_KEY] = SUNK
        for read in (known, aside):
            attention.v_proj.weight[second, read] = everything / unit
        attention.o_proj.weight[aside, second] = passed * everything
    mlp = model.model.layers[-1].mlp
    mlp.gate_proj.weight[:, late] = STEEP * everything / unit
    mlp.up_proj.weight[:, early] = everything / unit
    mlp.down_proj.weight[out] = (1 if needs == "both" else -1) * everything / STEEP
    return model


def _token(word: str) -> int:
    (token,) = tokenizer()(f" {word}", add_special_tokens=False)["input_ids"]
    return int(token)


def profile(needs: Needs, *, narrow: bool = False) -> Tensor:
    """[layer] noising - denoising of the stream at the subject or at the last token."""
    before = torch.cat([torch.zeros(1), shares(narrow=narrow).cumsum(0)[:-1]])
    early, late = before.clamp(max=1), (before - 1).clamp(min=0)
    asymmetry = early * (1 - late)
    return asymmetry if needs == "both" else -asymmetry
