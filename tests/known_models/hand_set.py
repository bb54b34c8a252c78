"""Models whose weights are set by hand, so that what each head does is known without measuring.

A Llama of 4 layers and 8 heads over the embedded models' vocabulary. Its MLPs are zero and every
token's embedding has one length, NORM, which is long against anything that a head writes: the final
norm divides by almost the same number everywhere, and what heads write adds up in the logits. Named
directions of the residual stream hold what a token is about (its answers' codes), who may attend to
it, and what has been found out so far (`out`, which the unembedding reads). A head is one entry of
`Design.heads`; a head without an entry writes a little noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fixtures.calibration.models import knowledge, tokenizer
from fixtures.organisms.families import CONTEXT, HEADS, LAYERS, WIDTH, save_model
from tests.benches import CORPORA
from tinyablation.corpora.binding import load_binding
from tinyablation.corpora.lexicons import load_lexicons
from tinyablation.heads import Head

SIZE = WIDTH // HEADS  # of a head, and of every code
NORM = 12.0  # of every token's embedding
THETA = 10_000.0  # of the rotary embedding

# The residual stream. Blocks of SIZE hold codes, whose first two numbers are for numerals.
ONE, GATE, HEDGE, FACT_KEY, KIND_KEY, HALF_KEY, SINK_KEY, FILLER = range(8)
COLOUR, PREVIOUS = slice(8, 16), slice(16, 24)
FACT, KIND, SELF, IDENTITY, OUT = (slice(24 + SIZE * n, 24 + SIZE * (n + 1)) for n in range(5))
KEYS = {"fact": FACT_KEY, "kind": KIND_KEY, "half": HALF_KEY}
VALUES = {"fact": FACT, "kind": KIND, "half": FACT}

# Logits: an answer's code read off `out` (LD is some 5), and how far all other words lie below.
READ, NO_ANSWER = 6.0, 12.0
# The number n has the code (cos, sin) of n times this angle; its word, looked up as a part of a
# sum, that of 2 n: the mean of two parts then points to their sum's.
NUMERAL_ANGLE = 0.1 * torch.pi
NUMERAL_LENGTH = 1.5  # longer than other codes: neighbours are but 18 degrees apart
# Attention scores: of a token that is looked for, of the first token, and of all others (0).
FOUND, SUNK = 24.0, 12.0
# Length of what a head without a role writes, and of what every other adds to its own; and the
# share that either passes on of what earlier heads wrote, in a direction of its own.
NOISE, LEAK = 0.1, 0.03
IDENTITY_LENGTH = 3.0


@dataclass(frozen=True)
class Lookup:
    """Adds to `out` the codes of the tokens it looks for, times a gain; below 0 it suppresses.

    fact, kind, half: the gains for the subjects of facts, for kinds of things, and for half of the
    subjects; with none of its own in the prompt it looks at the first token, which holds nothing.
    found: the score of what it looks for; gated: how much a unit on GATE takes off that.
    """

    fact: float = 0.0
    kind: float = 0.0
    half: float = 0.0
    found: float = FOUND
    gated: float = 0.0


@dataclass(frozen=True)
class Write:
    """Adds a constant to one direction of the stream, at every position."""

    size: float
    direction: int = GATE


@dataclass(frozen=True)
class Copy:
    """Adds gain x a token's own identity to it: moves neighbouring positions apart, or together."""

    gain: float


@dataclass(frozen=True)
class Previous:
    """Writes which colour the token before has."""


@dataclass(frozen=True)
class Binder:
    """Adds gain x the code of the thing that had this colour earlier in the prompt to `out`."""

    gain: float


Role = Lookup | Write | Copy | Previous | Binder


@dataclass(frozen=True)
class Design:
    """What the heads of a model do.

    heads: by head; faint: the length of the facts' codes of half of the subjects, below 0 the
    opposite's; wrong: the share of the subjects about which the model believes the opposite; seed:
    of codes and noise.
    """

    heads: Mapping[Head, Role] = field(default_factory=dict)
    faint: float = 1.0
    wrong: float = 0.0
    seed: int = 0


def build(design: Design) -> LlamaForCausalLM:
    """The model, in float32."""
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=SIZE,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        bos_token_id=words.eos_token_id,
        eos_token_id=words.eos_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(design.seed)
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    codes = _codes(rng)
    _set_embeddings(model.get_input_embeddings().weight, codes, design, rng)
    _set_unembedding(model.get_output_embeddings().weight, codes)
    for layer, block in enumerate(model.model.layers):
        for number in range(HEADS):
            made = _head(design.heads.get(Head(layer, number)), rng)
            rows = slice(number * SIZE, (number + 1) * SIZE)
            attention = block.self_attn
            for module, weight in zip(
                (attention.q_proj, attention.k_proj, attention.v_proj), made[:3], strict=True
            ):
                module.weight[rows] = weight
            attention.o_proj.weight[:, rows] = made[3]
    return model


def save(design: Design, folder: Path) -> Path:
    """The model as a Hugging Face folder, with the embedded models' tokenizer."""
    save_model(build(design), tokenizer(), folder, half=False)
    return folder


# --- words ---------------------------------------------------------------------------------------


@cache
def numerals() -> dict[str, int]:
    """The number words, as far as the facts go."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return {word: number for number, word in enumerate(words, start=1)}


def _token(word: str) -> int:
    (token,) = tokenizer()(f" {word}", add_special_tokens=False)["input_ids"]
    return int(token)


def _known(word: str) -> bool:
    return len(tokenizer()(f" {word}", add_special_tokens=False)["input_ids"]) == 1


@cache
def things() -> tuple[list[str], list[str]]:
    """Colours and things of the binding prompts that the tokenizer knows."""
    table = load_binding(CORPORA / "knowledge")
    return [w for w in table.adjectives if _known(w)], [w for w in table.nouns if _known(w)]


@cache
def associations() -> tuple[tuple[str, str, str], ...]:
    """(key, word, what it is about), without sums: Paris is about French, birds about wings."""
    kinds = knowledge().kinds
    found = []
    for name, relation in knowledge().relations.items():
        for subject, answer in relation.facts.items() if name != "sum" else ():
            # "books" are of paper, and a kind: one head knows both, and no other looks at it.
            found.append(("kind" if subject in kinds.kinds else "fact", subject, answer))
    for kind in kinds.kinds:
        found += [("kind", kind, kinds.word(kind, attribute)) for attribute in kinds.attributes]
    return tuple(found)


def _codes(rng: torch.Generator) -> dict[str, Tensor]:
    """Answer -> its code: length 1, directions drawn at random, but for numerals."""
    words = dict.fromkeys([answer for _, _, answer in associations()] + things()[1])
    codes = {}
    for word in words:
        code = torch.randn(SIZE, generator=rng)
        code[:2] = 0.0
        codes[word] = code / code.norm()
    for word, number in numerals().items():
        codes[word] = _numeral(number)
    return codes


def _numeral(number: int) -> Tensor:
    code = torch.zeros(SIZE)
    angle = torch.tensor(NUMERAL_ANGLE * number)
    code[:2] = NUMERAL_LENGTH * torch.stack([angle.cos(), angle.sin()])
    return code


# --- weights -------------------------------------------------------------------------------------


def _set_embeddings(
    weight: Tensor, codes: Mapping[str, Tensor], design: Design, rng: torch.Generator
) -> None:
    identity = torch.randn(len(weight), SIZE, generator=rng)
    weight[:, IDENTITY] = IDENTITY_LENGTH * identity / identity.norm(dim=1, keepdim=True)
    weight[:, ONE] = 1.0
    subjects = dict.fromkeys(word for key, word, _ in associations() if key == "fact")
    drawn = torch.rand(len(subjects), 2, generator=rng)
    for key, word, answer in associations():
        strength = 1.0
        if key == "fact":
            half, wrong = drawn[list(subjects).index(word)].tolist()
            if half < 0.5:
                weight[_token(word), HALF_KEY] = 1.0
                strength = design.faint
            if wrong < design.wrong:
                strength = -strength
        weight[_token(word), KEYS[key]] = 1.0
        weight[_token(word), VALUES[key]] += strength * codes[answer]
    for word, number in numerals().items():
        weight[_token(word), FACT_KEY] = 1.0
        weight[_token(word), FACT] = _numeral(2 * number)
    colours, nouns = things()
    for number, word in enumerate(colours):
        weight[_token(word), COLOUR.start + number] = 1.0
    for word in nouns:
        weight[_token(word), SELF] = codes[word]
    weight[tokenizer().eos_token_id, SINK_KEY] = 1.0
    weight[:, FILLER] = (NORM**2 - weight.square().sum(1)).sqrt()


def _set_unembedding(weight: Tensor, codes: Mapping[str, Tensor]) -> None:
    weight[:, ONE] = -NO_ANSWER
    for word, code in codes.items():
        weight[_token(word), ONE] = 0.0
        weight[_token(word), OUT] = READ * code
    for word in load_lexicons(CORPORA / "knowledge" / "lexicons.toml")["hedges"]:
        if _known(word):
            weight[_token(word), HEDGE] = weight[_token(word), GATE] = READ


def _head(role: Role | None, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key and value [SIZE, WIDTH] and output [WIDTH, SIZE] of one head."""
    query, key, value = (torch.zeros(SIZE, WIDTH) for _ in range(3))
    output = torch.zeros(WIDTH, SIZE)
    everything = torch.eye(SIZE)
    # What a normed unit of the embedding is worth, and scores are divided by sqrt(SIZE).
    unit = WIDTH**0.5 / NORM
    score = SIZE**0.5 / unit**2
    # The last pair of the rotary embedding turns least: 3e-4 a position.
    last, before = SIZE - 1, SIZE // 2 - 1
    match role:
        case Lookup():
            query[last, ONE] = query[before, ONE] = score
            query[before, GATE] = -role.gated * score / role.found
            key[last, SINK_KEY] = SUNK
            for name, keys in KEYS.items():
                if gain := getattr(role, name):
                    key[before, keys] = role.found
                    value[:, VALUES[name]] += gain * everything / unit
            output[OUT] = everything
        case Write(size, direction):
            value[0, ONE] = 1 / unit
            output[direction, 0] = size
            output[OUT, 1:] = everything[:, 1:]
        case Copy(gain):
            query[:, IDENTITY] = everything
            key[:, IDENTITY] = everything * score
            value[:, IDENTITY] = everything / unit
            output[IDENTITY] = gain * everything
        case Previous():
            for pair in range(3):
                turn = torch.tensor(THETA ** (-2 * pair / SIZE))
                query[pair, ONE] = 10 * FOUND * score * turn.cos()
                query[pair + SIZE // 2, ONE] = -10 * FOUND * score * turn.sin()
                key[pair, ONE] = 1.0
            value[: SIZE // 2, COLOUR] = torch.eye(SIZE // 2) / unit
            output[PREVIOUS, : SIZE // 2] = torch.eye(SIZE // 2)
        case Binder(gain):
            # Colours in the pairs that turn least; the next one for the first token.
            slow = [4, 5, 6, 7, 12, 13, 14, 15]
            colours = torch.eye(SIZE // 2)
            query[slow, COLOUR] = score * FOUND * colours
            key[slow, PREVIOUS] = colours
            query[3, ONE] = score * SUNK
            key[3, SINK_KEY] = 1.0
            value[:, SELF] = everything / unit
            output[OUT] = gain * everything
        case None:
            output[OUT] = everything
    # No head writes nothing at all, and no effect takes one path alone.
    for block, length in ((IDENTITY, NOISE / IDENTITY_LENGTH), (OUT, LEAK)):
        mixed = torch.randn(SIZE, SIZE, generator=rng) / SIZE**0.5
        value[:, block] += length * mixed / unit
    return query, key, value, output
