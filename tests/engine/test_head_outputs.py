"""Mean outputs of heads against TransformerBridge's caches, and what is written of them.

Run: pytest tests/engine/test_head_outputs.py
"""

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import bridge_of, make_prompts
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, VOCABULARY
from tinyablation.analysis.head_vocabulary import HeadVocabulary
from tinyablation.corpora.lexicons import candidate_ids, token_texts
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine import head_outputs as ov
from tinyablation.engine.document import Computed
from tinyablation.engine.engine import Engine
from tinyablation.engine.head_outputs import head_outputs, measure_ov
from tinyablation.engine.ov_circuits import ov_circuits
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.engine.readout import Readout
from tinyablation.models.loading import load_model
from tinyablation.records.plain import plain

# fp32 sums in another order, outputs of some units.
TOLERANCE = 1e-5

LEXICONS = {
    "hedges": ("perhaps", "maybe", "possibly"),
    "boosters": ("totally", "fully", "entirely"),
}


# One prompt twice: it weighs twice.
PROMPTS = [*make_prompts([6, 9, 6, 4, 9, 1, 11]), *make_prompts([6])]


@pytest.fixture(scope="module")
def engines(tiny_models: dict[str, Any]) -> dict[str, Engine]:
    return {family: Engine(model) for family, model in tiny_models.items()}


def with_words(loaded: Any) -> Any:
    """The random model with a byte-level tokenizer that knows four hedges as one token."""
    from dataclasses import replace

    from tests.small_tokenizers import byte_level

    words = ["It", " is", " perhaps", " maybe", " possibly", " Paris", " Rome", " fully"]
    return replace(loaded, tokenizer=byte_level([*words, *(f" {chr(97 + i)}" for i in range(20))]))


@pytest.fixture(scope="module")
def worded(tiny_models: dict[str, Any]) -> Engine:
    return Engine(with_words(tiny_models["gpt2"]))


def measure(engine: Engine, prompts: list[Prompt] = PROMPTS, **changes: Any) -> Computed:
    options: dict[str, Any] = {
        "condition": "facts",
        "split": "discovery",
        "lexicons": LEXICONS,
        "top_k": 12,
    }
    return measure_ov(engine, prompts, **{**options, **changes})


@pytest.fixture(scope="module")
def computed(worded: Engine) -> Computed:
    return measure(worded, layers_with_vectors=(0, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_outputs_are_the_bridges_z_through_its_output_matrix(
    family: str, engines: Any, tiny_entry: Any
) -> None:
    """One prompt alone after the other, no batch and no padding."""
    bridge = bridge_of(load_model(tiny_entry(family)))
    found = head_outputs(engines[family], PROMPTS)
    assert found.shape == (N_LAYERS, N_HEADS, 32) and found.dtype == torch.float64
    with torch.no_grad():
        caches = [
            bridge.run_with_cache(torch.tensor([prompt.ids]), prepend_bos=False)[1]
            for prompt in PROMPTS
        ]
        for layer in range(N_LAYERS):
            z = torch.stack([cache[f"blocks.{layer}.attn.hook_z"][0, -1] for cache in caches])
            expected = torch.einsum(
                "phd,hdm->hm", z.double(), bridge.blocks[layer].attn.W_O.double()
            ) / len(PROMPTS)
            assert (found[layer] - expected).abs().max() < TOLERANCE
            assert expected.abs().max() > 0.05


def test_chunks_change_nothing(engines: Any, monkeypatch: Any) -> None:
    whole = head_outputs(engines["mistral"], PROMPTS)
    monkeypatch.setattr(ov, "RECORD_NUMBERS", 1)  # one prompt at a time
    assert (head_outputs(engines["mistral"], PROMPTS) - whole).abs().max() < TOLERANCE


def test_prompts_the_model_cannot_be_given_are_refused(engines: Any) -> None:
    with pytest.raises(EngineError, match="no prompts to measure"):
        head_outputs(engines["gpt2"], [])
    with pytest.raises(EngineError, match="outside the vocabulary"):
        head_outputs(engines["gpt2"], [Prompt((1, VOCABULARY), 1, 2)])


def test_the_document_is_plain_and_names_every_head(computed: Computed) -> None:
    document = computed.document
    assert plain(document) == document == json.loads(json.dumps(document, allow_nan=False))
    heads = [(row["layer"], row["head"]) for row in document["heads"]]
    assert heads == [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    assert document["n_examples"] == len(PROMPTS)
    assert (document["model"], document["condition"]) == ("random-gpt2", "facts")
    assert document["split"] == "discovery"
    assert document["background"]["n_heads"] == N_LAYERS * N_HEADS


def test_heads_carry_their_own_figures(worded: Engine, computed: Computed) -> None:
    outputs = head_outputs(worded, PROMPTS)
    circuits = ov_circuits(worded)
    logits = Readout(worded.architecture)(outputs)
    texts = token_texts(worded.loaded.tokenizer, VOCABULARY)
    for row in computed.document["heads"]:
        at = row["layer"], row["head"]
        assert row["vector_norm"] == pytest.approx(outputs[at].norm().item())
        for end, sign in (("top", 1), ("bottom", -1)):
            tokens = row["tokens"][end]
            best = torch.topk(sign * logits[at], 12)
            assert [token["token_id"] for token in tokens] == best.indices.tolist()
            for token, value in zip(tokens, (sign * best.values).tolist(), strict=True):
                assert token["logit"] == pytest.approx(value, abs=TOLERANCE)
                assert token["token"] == texts[token["token_id"]]
        circuit = circuits[at[0]]
        static = row["static"]
        assert static["singular_value"] == pytest.approx(circuit.singular_value[at[1]].item())
        assert static["copying"] == pytest.approx(circuit.copying[at[1]].item())
        # The sign of the static direction is that of the mean output.
        direction = circuit.direction[at[1]]
        sign = torch.sign(direction @ outputs[at])
        expected = Readout(worded.architecture)(sign * direction)
        assert static["tokens"]["top"][0]["token_id"] == expected.argmax().item()
        assert static["tokens"]["bottom"][0]["token_id"] == expected.argmin().item()


def test_the_tensors_are_the_logits_of_the_chosen_layers(
    worded: Engine, computed: Computed
) -> None:
    logits = Readout(worded.architecture)(head_outputs(worded, PROMPTS)).numpy()
    assert set(computed.tensors) == {"logits.0", "logits.2"}
    for layer in (0, 2):
        found = computed.tensors[f"logits.{layer}"]
        assert found.dtype == np.float32 and found.shape == (N_HEADS, VOCABULARY)
        assert found == pytest.approx(logits[layer], abs=TOLERANCE)
    assert measure(worded, layers_with_vectors=()).tensors == {}


def test_lexicons_are_reported_and_a_thin_one_is_blocked(computed: Computed) -> None:
    document = computed.document
    assert document["lexicons"]["hedges"] == {
        "n": 3,
        "used": ["perhaps", "maybe", "possibly"],
        "not_one_token": [],
        "blocked": None,
    }
    assert document["lexicons"]["boosters"]["used"] == ["fully"]
    assert "at least 3 are needed" in document["lexicons"]["boosters"]["blocked"]
    for row in document["heads"]:
        assert row["lexicons"]["boosters"] is None
        figures = row["lexicons"]["hedges"]
        assert set(figures) == {
            *("score", "excess", "p", "p_tokens", "p_directions", "rank", "log_odds")
        }
        assert 0 < figures["p"] <= 1
    ranks = [row["lexicons"]["hedges"]["rank"] for row in document["heads"]]
    assert sorted(ranks) == list(range(1, N_LAYERS * N_HEADS + 1))


def test_the_seed_moves_p_and_nothing_else(worded: Engine, computed: Computed) -> None:
    same, other = measure(worded).document, measure(worded, seed=1).document
    assert same["heads"] == computed.document["heads"]
    for one, two in zip(same["heads"], other["heads"], strict=True):
        assert one["tokens"] == two["tokens"]
        assert one["lexicons"]["hedges"]["excess"] == two["lexicons"]["hedges"]["excess"]
    assert [row["lexicons"] for row in same["heads"]] != [row["lexicons"] for row in other["heads"]]


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_a_head_made_to_write_hedges_is_found(family: str, tiny_entry: Any) -> None:
    """Planting: the head's output matrix is made to write the sum of the hedges' unembeddings."""
    loaded = with_words(load_model(tiny_entry(family)))
    engine = Engine(loaded)
    arch = engine.architecture
    before = measure(engine).document
    planted = (1, 2)
    texts = token_texts(loaded.tokenizer, VOCABULARY)
    hedges = [texts.index(f" {word}") for word in LEXICONS["hedges"]]
    columns = arch.columns(1, (planted,))[0]
    with torch.no_grad():
        direction = Readout(arch).unembed[:, hedges].sum(dim=1)
        mean_z = torch.linalg.lstsq(
            arch.output_matrix(1, columns).T.double(), head_outputs(engine, PROMPTS)[planted]
        ).solution
        matrix = torch.outer(mean_z / mean_z.square().sum(), direction.double()).float()
        arch.output_matrix(1, columns).copy_(matrix)
    after = measure(engine).document

    def figures(document: dict[str, Any]) -> dict[str, float]:
        row = document["heads"][planted[0] * N_HEADS + planted[1]]
        assert (row["layer"], row["head"]) == planted
        return row["lexicons"]["hedges"]

    assert figures(after)["rank"] == 1 and figures(after)["p"] < 0.01
    assert figures(before)["p"] > 0.05
    assert figures(after)["log_odds"] > figures(before)["log_odds"]
    row = after["heads"][planted[0] * N_HEADS + planted[1]]
    for tokens in (row["tokens"], row["static"]["tokens"]):
        top = [token["token"] for token in tokens["top"]]
        assert {f" {word}" for word in LEXICONS["hedges"]} <= set(top)


def test_random_heads_lean_nowhere(tiny_entry: Any) -> None:
    """Planting shows that p can be small; here it is anything: 48 heads of a random model."""
    p = []
    for seed in range(4):
        loaded = with_words(load_model(tiny_entry("gpt2")))
        engine = Engine(loaded)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in range(N_LAYERS):
                weight = engine.architecture.output_matrix(layer, slice(None))
                weight.copy_(torch.randn(weight.shape, generator=rng))
        heads = measure(engine, seed=seed).document["heads"]
        p += [row["lexicons"]["hedges"]["p_directions"] for row in heads]
    assert np.mean(np.array(p) <= 0.1) < 0.25
    assert 0.3 < np.mean(p) < 0.7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": VOCABULARY + 1}, f"has {VOCABULARY} tokens"),
        ({"layers_with_vectors": (N_LAYERS,)}, f"has no layer {N_LAYERS}"),
    ],
)
def test_what_the_model_has_not_is_refused(worded: Engine, changes: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        measure(worded, **changes)


def test_a_dead_head_is_refused_by_name(tiny_entry: Any) -> None:
    engine = Engine(with_words(load_model(tiny_entry("llama"))))
    with torch.no_grad():
        columns = engine.architecture.columns(1, ((1, 3),))[0]
        engine.architecture.output_matrix(1, columns).zero_()
    with pytest.raises(EngineError, match="head 1:3 writes nothing"):
        measure(engine)


# --- by cluster ----------------------------------------------------------------------------------

CLUSTERS = ["b", "a", "b", "c", "a", "a", "c", "c"]
HEAD = (1, 2)


@pytest.fixture(scope="module")
def clustered(worded: Engine) -> Computed:
    return measure(worded, clusters=CLUSTERS, cluster_heads=[HEAD], layers_with_vectors=(1,))


def test_clusters_change_no_other_figure(computed: Computed, clustered: Computed) -> None:
    """The mean over clusters by their sizes is the mean over prompts."""
    document = dict(clustered.document)
    assert document.pop("clusters") == {"ids": ["a", "b", "c"], "n_examples": [3, 2, 3]}
    assert set(document) == set(computed.document)
    for one, two in zip(document["heads"], computed.document["heads"], strict=True):
        assert one["vector_norm"] == pytest.approx(two["vector_norm"])
        for field, value in two["lexicons"]["hedges"].items():
            assert one["lexicons"]["hedges"][field] == pytest.approx(value, abs=TOLERANCE)


def test_a_clusters_figures_are_those_of_its_prompts_alone(
    worded: Engine, clustered: Computed
) -> None:
    readout = Readout(worded.architecture)
    texts = token_texts(worded.loaded.tokenizer, VOCABULARY)
    candidates = candidate_ids(worded.loaded.tokenizer, texts)
    hedges = [texts.index(f" {word}") for word in LEXICONS["hedges"]]
    alone = []
    for name in "abc":
        own = [prompt for prompt, at in zip(PROMPTS, CLUSTERS, strict=True) if at == name]
        alone.append(readout(head_outputs(worded, own).flatten(0, 1)).double().numpy())
    logits = np.stack(alone)
    place = HEAD[0] * N_HEADS + HEAD[1]
    assert clustered.tensors["clusters.logits.1.2"] == pytest.approx(
        logits[:, place], abs=TOLERANCE
    )
    chosen = logits[:, :, candidates]
    centred = chosen - chosen.mean(axis=2, keepdims=True)
    spread = np.einsum("chv,dhv->hcd", centred, centred) / len(candidates)
    assert clustered.tensors["clusters.spread"] == pytest.approx(spread, abs=TOLERANCE)
    words = logits[:, :, hedges].mean(axis=2) - chosen.mean(axis=2)
    assert clustered.tensors["clusters.hedges"] == pytest.approx(words.T, abs=TOLERANCE)
    assert "clusters.boosters" not in clustered.tensors  # blocked


def test_a_head_vocabulary_give_the_documents_excess(clustered: Computed) -> None:
    vocabulary = HeadVocabulary(clustered)
    found = vocabulary.excess(HEAD, "hedges")
    assert found.estimate == pytest.approx(
        vocabulary.figures(HEAD, "hedges")["excess"], abs=TOLERANCE
    )
    assert (found.n, found.n_clusters) == (len(PROMPTS), 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clusters": CLUSTERS[:3]}, "3 clusters are given for 8 prompts"),
        ({"clusters": CLUSTERS, "cluster_heads": [(1, N_HEADS)]}, "no logits by cluster of head"),
        ({"cluster_heads": [HEAD]}, "0 clusters"),
    ],
)
def test_clusters_that_do_not_fit_are_refused(worded: Engine, changes: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        measure(worded, **changes)
