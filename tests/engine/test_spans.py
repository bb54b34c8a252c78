"""Answers of several tokens against one-prompt-alone TransformerBridge, and what is refused.

Run: pytest tests/engine/test_spans.py
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from tests.bridging import bridge_of
from tests.small_tokenizers import merging_over_spaces, sentencepiece_like
from tinyablation.corpora.answers import Span, encode_spans, is_multi_token
from tinyablation.corpora.examples import Example
from tinyablation.corpora.tokenisation import Prompt, TokenisationError, encode_examples
from tinyablation.engine.engine import Engine, EngineError
from tinyablation.engine.spans import (
    LEAST_PROBABILITY,
    measure_spans,
)
from tinyablation.engine.tables import ENGINE_COLUMNS
from tinyablation.interventions.interventions import (
    AblateHeads,
    Intervention,
    PatchHeads,
    PatchResidual,
    ScaleHeads,
    Steer,
)
from tinyablation.models.loading import load_model
from tinyablation.models.registry import ModelEntry

ORGANISMS = Path(__file__).parents[2] / "fixtures" / "organisms"
FAMILIES = ("gpt2", "mistral")
# fp32 sums in another order, over the 12 tokens of an answer: 3e-5 of some 300 nats here.
ORACLE_TOLERANCE = 1e-4
EXACT = 1e-9

# Target and foil of: many tokens and one, one and many, many and many that begin alike, one each.
ANSWERS = [
    ("France", " Zanzibar", " Paris"),
    ("Italy", " Rome", " Ouagadougou"),
    ("Japan", " Zanzibar", " Zagreb"),
    ("Peru", " Lima", " Rome"),
    ("Egypt", " Accra", " Zagreb"),
]
HEADS = ((0, 1), (0, 3), (2, 5))
INTERVENTIONS: list[Intervention] = [
    AblateHeads(((0, 2),)),
    AblateHeads(((3, 7),)),
    AblateHeads(HEADS),
    ScaleHeads(((1, 4),), 0.5),
]


def example(subject: str, target: str, foil: str) -> Example:
    return Example(
        clean=f"In short, the capital of {subject} is known to be",
        corrupt=f"In short, the capital of {subject} is simply",
        null="In short, the capital of something is known to be",
        target=target,
        foil=foil,
        fact_id=subject,
        template_id="short.known",
        cluster_id=subject,
        cell="",
        aligned=False,
    )


EXAMPLES = [example(*row) for row in ANSWERS]
CLUSTERS = [row.cluster_id for row in EXAMPLES]


def load(family: str) -> Any:
    return load_model(
        ModelEntry(
            id=f"tiny-{family}",
            title=family,
            source=ORGANISMS / f"tiny-{family}",
            family=family,
            variant="hedged",
            bos=True,
        )
    )


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    return {family: Engine(load(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def bridges() -> dict[str, Any]:
    return {family: bridge_of(load(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def spans(engines: dict[str, Engine]) -> list[Span]:
    loaded = engines["gpt2"].loaded
    return encode_spans(loaded.tokenizer, EXAMPLES, loaded.bos_id)


def whole_sequence(bridge: Any, ids: tuple[int, ...], change: Any = None) -> torch.Tensor:
    """log p of every next token, [positions, vocabulary], of one sequence alone.

    change(z of one layer [positions, head, d_head], layer) -> what it becomes.
    """

    def hook_of(layer: int) -> Any:
        return lambda z, hook=None: change(z[0].clone(), layer)[None]

    hooks = [(f"blocks.{at}.attn.hook_z", hook_of(at)) for at in range(4)] if change else []
    with torch.no_grad():
        logits = bridge.run_with_hooks(
            torch.tensor([ids]), fwd_hooks=hooks, prepend_bos=False, return_type="logits"
        )
    return logits[0].double().log_softmax(-1)


def scaled(intervention: Any) -> Any:
    """The oracle's change for an intervention of INTERVENTIONS."""

    def change(z: torch.Tensor, layer: int) -> torch.Tensor:
        for at, head in intervention.heads:
            if at == layer:
                z[:, head] *= getattr(intervention, "scale", 0.0)
        return z

    return change


def expected(bridge: Any, span: Span, change: Any) -> dict[str, float]:
    """The figures of whole answers, each answer in one pass over prompt and answer."""
    start, figures = len(span.ids) - 1, {}
    for name, answer in (("target", span.target), ("foil", span.foil)):
        place = range(start, start + len(answer))
        log = whole_sequence(bridge, span.ids + answer, change)[place]
        figures[name] = log[range(len(answer)), answer].sum().item()
        if name == "target":
            clean = whole_sequence(bridge, span.ids + answer)[place]
            kl = (clean.exp() * (clean - log)).sum(-1).mean().item()
    return {
        "seq_logprob_diff": figures["target"] - figures["foil"],
        "seq_probability": np.exp(figures["target"]),
        "seq_kl_mean": kl,
    }


def by_name(frame: pandas.DataFrame) -> pandas.DataFrame:
    return frame.set_index(["intervention", "example"])


# Encoding ----------------------------------------------------------------------------------------


def test_spans_are_the_prompt_and_all_tokens_of_each_answer(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    tokenizer = engines["gpt2"].loaded.tokenizer
    for row, span in zip(EXAMPLES, spans, strict=True):
        assert span.ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(span.ids[1:]) == row.clean
        assert tokenizer.decode(span.target) == row.target
        assert tokenizer.decode(span.foil) == row.foil
    assert [len(span.target) for span in spans] == [9, 1, 9, 1, 6]
    plain = encode_spans(tokenizer, EXAMPLES, None, side="corrupt")
    assert [tokenizer.decode(span.ids) for span in plain] == [row.corrupt for row in EXAMPLES]
    assert [span.target for span in plain] == [span.target for span in spans]


def test_answers_of_one_token_each_are_not_multi_token(engines: dict[str, Engine]) -> None:
    tokenizer = engines["gpt2"].loaded.tokenizer
    assert not is_multi_token(tokenizer, [EXAMPLES[3]])
    assert is_multi_token(tokenizer, EXAMPLES[3:])
    assert is_multi_token(tokenizer, [EXAMPLES[1]], side="null")


def test_answers_that_cannot_be_compared_are_refused(engines: dict[str, Engine]) -> None:
    tokenizer = engines["gpt2"].loaded.tokenizer
    longer = replace(EXAMPLES[0], foil=" Zanzibarian")
    with pytest.raises(TokenisationError, match="' Zanzibar' and ' Zanzibarian' one begins"):
        encode_spans(tokenizer, [longer], None)
    with pytest.raises(TokenisationError, match="'' adds no token after"):
        encode_spans(tokenizer, [_with_target(EXAMPLES[0], "")], None)


def _with_target(row: Example, target: str) -> Any:
    """An Example would refuse it: what a tokenizer makes nothing of is rarely empty text."""
    from types import SimpleNamespace

    return SimpleNamespace(clean=row.clean, target=target, foil=row.foil)


def test_an_answer_that_moves_or_is_unknown_is_refused() -> None:
    moving = _with_target(EXAMPLES[0], " c")
    moving.clean = "ab"
    with pytest.raises(TokenisationError, match="' c' changes how the prompt before it"):
        encode_spans(merging_over_spaces(), [moving], None)
    pieces = sentencepiece_like(["is", "Paris", "Rome"])
    unknown = _with_target(EXAMPLES[0], " Qum")
    unknown.clean = "is"
    with pytest.raises(TokenisationError, match="' Qum' is unknown to the tokenizer, after 'is'"):
        is_multi_token(pieces, [unknown])


# Figures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_answers_are_those_of_one_pass_over_prompt_and_answer(
    family: str, engines: dict[str, Engine], bridges: dict[str, Any], spans: list[Span]
) -> None:
    frame = measure_spans(engines[family], spans, INTERVENTIONS)
    assert list(frame.columns) == list(ENGINE_COLUMNS)
    assert len(frame) == (len(INTERVENTIONS) + 1) * len(spans)
    rows = by_name(frame)
    moved = 0.0
    for number, span in enumerate(spans):
        for intervention in [None, *INTERVENTIONS]:
            row = rows.loc[(intervention.label if intervention else "baseline", number)]
            change = scaled(intervention) if intervention else None
            for name, value in expected(bridges[family], span, change).items():
                assert row[name] == pytest.approx(value, abs=ORACLE_TOLERANCE), (name, number)
            if intervention is None:
                assert row["seq_kl_mean"] == 0.0
            moved = max(moved, row["seq_kl_mean"])
    assert moved > 0.01  # else zeroing heads would not have been seen


def test_first_token_figures_are_those_of_the_first_tokens(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    engine = engines["gpt2"]
    frame = measure_spans(engine, spans, INTERVENTIONS)
    alike = [span.target[0] == span.foil[0] for span in spans]
    assert alike == [False, False, True, False, True]
    prompts = [
        Prompt(s.ids, s.target[0], 1 if a else s.foil[0]) for s, a in zip(spans, alike, strict=True)
    ]
    alone = engine.measure(prompts, INTERVENTIONS)
    pandas.testing.assert_frame_equal(
        frame[["intervention", "example", "heads"]], alone[["intervention", "example", "heads"]]
    )
    same = np.tile(alike, len(INTERVENTIONS) + 1)
    for name in ("target_logit", "target_probability", "kl", "entropy"):
        np.testing.assert_allclose(frame[name], alone[name], atol=1e-5, rtol=0)
    for name in ("target_rank", "argmax"):
        assert (frame[name] == alone[name]).all()
    assert (frame["logit_diff"][same] == 0.0).all()
    assert (frame["foil_logit"][same] == frame["target_logit"][same]).all()
    for name in ("logit_diff", "foil_logit"):
        np.testing.assert_allclose(frame[name][~same], alone[name][~same], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_one_token_have_the_figures_of_the_engine(
    family: str, engines: dict[str, Engine]
) -> None:
    """Alone as Engine.measure; and among longer ones still logit_diff, p and kl of their token."""
    engine = engines[family]
    tokenizer, bos = engine.loaded.tokenizer, engine.loaded.bos_id
    short = [example(*row) for row in (("Peru", " Lima", " Rome"), ("Cuba", " Paris", " Lima"))]
    interventions = [*INTERVENTIONS, AblateHeads(HEADS, "mean"), AblateHeads(HEADS, "resample")]
    prompts, spans = encode_examples(tokenizer, short, bos), encode_spans(tokenizer, short, bos)
    pandas.testing.assert_frame_equal(
        measure_spans(engine, spans, interventions, reference=spans, clusters=["a", "b"], seed=3),
        engine.measure(prompts, interventions, reference=prompts, clusters=["a", "b"], seed=3),
    )
    mixed = encode_spans(tokenizer, [*short, EXAMPLES[0]], bos)
    frame = measure_spans(engine, mixed, INTERVENTIONS)
    frame = frame[frame["example"] < 2]
    for whole, token in (
        ("seq_logprob_diff", "logit_diff"),
        ("seq_probability", "target_probability"),
        ("seq_kl_mean", "kl"),
    ):
        np.testing.assert_allclose(frame[whole], frame[token], atol=EXACT, rtol=0)


def test_a_common_beginning_is_worth_nothing(engines: dict[str, Engine], spans: list[Span]) -> None:
    """log p - log p of " Zanzibar" and " Zagreb" is that of "nzibar" and "greb" after " Za"."""
    span = spans[2]
    assert span.target[:3] == span.foil[:3]
    shorter = Span(span.ids + span.target[:3], span.target[3:], span.foil[3:])
    whole, rest = (
        measure_spans(engines["gpt2"], [each], INTERVENTIONS)["seq_logprob_diff"]
        for each in (span, shorter)
    )
    np.testing.assert_allclose(whole, rest, atol=1e-5, rtol=0)
    assert abs(whole).min() > 0.01


def test_the_foil_is_the_target_turned_round(engines: dict[str, Engine], spans: list[Span]) -> None:
    turned = [Span(span.ids, span.foil, span.target) for span in spans]
    frames = [measure_spans(engines["mistral"], each, INTERVENTIONS) for each in (spans, turned)]
    np.testing.assert_allclose(
        frames[0]["seq_logprob_diff"], -frames[1]["seq_logprob_diff"], atol=1e-5, rtol=0
    )


# Reference prompts -------------------------------------------------------------------------------


def test_mean_ablation_puts_in_the_mean_over_the_prompts_without_answers(
    engines: dict[str, Engine], bridges: dict[str, Any], spans: list[Span]
) -> None:
    mean = AblateHeads(HEADS, "mean")
    rows = by_name(measure_spans(engines["gpt2"], spans, [mean], reference=spans))
    cached = []
    for span in spans:
        with torch.no_grad():
            cache = bridges["gpt2"].run_with_cache(torch.tensor([span.ids]), prepend_bos=False)[1]
        cached.append([cache[f"blocks.{layer}.attn.hook_z"][0, 1:] for layer in range(4)])
    means = [torch.cat([each[layer] for each in cached]).mean(0) for layer in range(4)]

    def change(z: torch.Tensor, layer: int) -> torch.Tensor:
        for at, head in HEADS:
            if at == layer:
                z[:, head] = means[layer][head]
        return z

    for number, span in enumerate(spans):
        for name, value in expected(bridges["gpt2"], span, change).items():
            assert rows.loc[(mean.label, number)][name] == pytest.approx(
                value, abs=ORACLE_TOLERANCE
            )


def test_one_donor_lends_its_prompt_and_its_own_target(
    engines: dict[str, Engine], bridges: dict[str, Any], spans: list[Span]
) -> None:
    """With one admissible donor, longer than the prompt: its last tokens stand in.

    Its target is another word than the example's, so that either continuation would show.
    """
    resample = AblateHeads(HEADS, "resample")
    span = spans[0]
    donor = Span((*span.ids[:2], *spans[2].ids[1:]), spans[1].foil, spans[1].target)
    assert len(donor.target) >= len(span.target) and donor.target[:8] != span.target[:8]
    assert len(donor.ids) == len(span.ids) + 1
    frame = measure_spans(
        engines["gpt2"],
        [span],
        [resample],
        reference=[span, donor],
        clusters=["own"],
        reference_clusters=["own", "other"],
    )
    with torch.no_grad():
        cache = bridges["gpt2"].run_with_cache(
            torch.tensor([donor.ids + donor.target]), prepend_bos=False
        )[1]

    def change(z: torch.Tensor, layer: int) -> torch.Tensor:
        for at, head in HEADS:
            if at == layer:
                z[:, head] = cache[f"blocks.{layer}.attn.hook_z"][0, 1 : 1 + len(z), head]
        return z

    row = by_name(frame).loc[(resample.label, 0)]
    for name, value in expected(bridges["gpt2"], span, change).items():
        assert row[name] == pytest.approx(value, abs=ORACLE_TOLERANCE), name
    assert row["seq_kl_mean"] > 0.001


def test_donors_are_drawn_again_the_same_whatever_else_is_measured(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    engine, resample = engines["gpt2"], AblateHeads(((0, 0), (0, 1), (0, 2), (0, 3)), "resample")
    wide = [span._replace(target=spans[0].target, foil=spans[4].target) for span in spans]
    given: dict[str, Any] = {"reference": wide, "reference_clusters": CLUSTERS}
    frame = measure_spans(engine, wide, [resample], clusters=CLUSTERS, seed=5, **given)
    alone = measure_spans(engine, wide[:1], [resample], clusters=CLUSTERS[:1], seed=5, **given)
    np.testing.assert_allclose(
        by_name(frame).loc[(resample.label, 0)]["seq_logprob_diff"],
        by_name(alone).loc[(resample.label, 0)]["seq_logprob_diff"],
        atol=1e-5,
    )
    implied = measure_spans(engine, wide, [resample], clusters=CLUSTERS, seed=5, reference=wide)
    pandas.testing.assert_frame_equal(frame, implied)
    # The first token's figures have the donors that Engine.measure draws.
    prompts = [Prompt(span.ids, span.target[0], 1) for span in wide]
    first = engine.measure(prompts, [resample], reference=prompts, clusters=CLUSTERS, seed=5)
    np.testing.assert_allclose(frame["kl"], first["kl"], atol=1e-5)
    unnamed = measure_spans(engine, wide, [resample], seed=5, reference=wide)
    assert np.isfinite(unnamed["seq_logprob_diff"]).all()


def test_an_example_without_a_donor_is_named(engines: dict[str, Engine], spans: list[Span]) -> None:
    resample = [AblateHeads(HEADS, "resample")]
    # Only spans 0, 2 and 4 have targets of 6 tokens and more, and span 1 has a foil of 12.
    with pytest.raises(EngineError, match=r"example 1 \(12 tokens, cluster 'Italy', 12 answer "):
        measure_spans(engines["gpt2"], spans, resample, reference=spans, clusters=CLUSTERS)
    with pytest.raises(EngineError, match="resample: reference prompts are needed"):
        measure_spans(engines["gpt2"], spans, resample, clusters=CLUSTERS)
    with pytest.raises(EngineError, match="reference span 0 has none of the spans' prompts"):
        measure_spans(engines["gpt2"], spans[1:], resample, reference=spans, clusters=CLUSTERS[1:])
    with pytest.raises(EngineError, match="reference_clusters has 1 names for 5"):
        measure_spans(
            engines["gpt2"],
            spans,
            resample,
            reference=spans,
            clusters=CLUSTERS,
            reference_clusters=["a"],
        )


# Patches and steering ----------------------------------------------------------------------------


def test_a_pair_prompt_is_continued_with_the_examples_own_answer(
    engines: dict[str, Engine], bridges: dict[str, Any], spans: list[Span]
) -> None:
    patch = PatchHeads(HEADS)
    pairs = [spans[(number + 1) % len(spans)] for number in range(len(spans))]
    rows = by_name(measure_spans(engines["gpt2"], spans, [patch], pairs=pairs))
    for number, (span, pair) in enumerate(zip(spans, pairs, strict=True)):
        values = []
        for answer in (span.target, span.foil):
            with torch.no_grad():
                cache = bridges["gpt2"].run_with_cache(
                    torch.tensor([pair.ids + answer]), prepend_bos=False
                )[1]

            def change(z: torch.Tensor, layer: int, cache: Any = cache) -> torch.Tensor:
                for at, head in HEADS:
                    if at == layer:
                        z[:, head] = cache[f"blocks.{layer}.attn.hook_z"][0, : len(z), head]
                return z

            log = whole_sequence(bridges["gpt2"], span.ids + answer, change)
            start = len(span.ids) - 1
            values.append(sum(log[start + i, token].item() for i, token in enumerate(answer)))
        assert rows.loc[(patch.label, number)]["seq_logprob_diff"] == pytest.approx(
            values[0] - values[1], abs=ORACLE_TOLERANCE
        )


def test_subjects_and_directions_are_passed_on(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    """A sham patch at the subject changes nothing; a direction changes every token."""
    sham, steer = PatchResidual(1, 0, "subject", "self"), Steer(1, "up", 2.0)
    vector = torch.linspace(-1, 1, engines["gpt2"].loaded.facts.d_model)
    frame = measure_spans(
        engines["gpt2"],
        spans,
        [sham, steer],
        subjects=[(7,)] * len(spans),
        directions={"up": vector},
    )
    rows = frame.set_index("intervention")["seq_kl_mean"]
    assert rows[sham.label].max() < 1e-6 and rows[steer.label].min() > 1e-4


def test_what_would_move_from_token_to_token_is_refused(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    for patch in (PatchResidual(1), PatchHeads(HEADS, "all", "other")):
        with pytest.raises(EngineError, match=f"{re.escape(patch.label)} cannot be measured on"):
            measure_spans(engines["gpt2"], spans, [patch], pairs=spans, clusters=CLUSTERS)
    # With answers of one token each there is nothing to move to.
    measure_spans(engines["gpt2"], spans[3:4], [PatchResidual(1)], pairs=spans[3:4])


# Refusals ----------------------------------------------------------------------------------------


def test_spans_that_cannot_be_measured_are_named(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    engine = engines["gpt2"]
    for span in (
        spans[0]._replace(foil=spans[0].target),
        spans[0]._replace(target=()),
        spans[0]._replace(foil=()),
    ):
        with pytest.raises(EngineError, match="span 1 needs a target and a foil"):
            measure_spans(engine, [spans[3], span], [])
    # The prompt alone fits: what does not is its answer.
    long = spans[0]._replace(ids=(*spans[0].ids, *[5] * (128 - len(spans[0].ids))))
    with pytest.raises(EngineError, match="span 1 has 136 tokens, more than the context of 128"):
        measure_spans(engine, [spans[0], long], [])
    with pytest.raises(EngineError, match="span 0: token id 99999 is outside the vocabulary"):
        measure_spans(engine, [spans[0]._replace(foil=(5, 99999, 6))], [])
    for name, value in (("clusters", ["a"]), ("subjects", [(1,)]), ("pairs", spans[:1])):
        with pytest.raises(EngineError, match=f"{name} has 1 entries for 5 spans"):
            measure_spans(engine, spans, [], **{name: value})
    with pytest.raises(EngineError, match="seed must not be negative"):
        measure_spans(engine, spans, [], seed=-1)
    with pytest.raises(EngineError, match="no prompts to measure|no spans to measure"):
        measure_spans(engine, [], [])


def test_a_lost_logarithm_is_refused_with_its_example(spans: list[Span]) -> None:
    """Logits 5,000 apart: a probability of exp(-5000) is 0 in float64, and -inf as a logarithm."""
    loaded = load("gpt2")
    with torch.no_grad():
        loaded.model.transformer.ln_f.weight.mul_(1000)
    engine = Engine(loaded)
    # Of one token, the logit difference is still exact.
    frame = measure_spans(engine, spans[3:4], [])
    assert abs(frame["seq_logprob_diff"][0]) > -np.log(LEAST_PROBABILITY)
    with pytest.raises(EngineError, match="under baseline a token of an answer of example 1 is"):
        measure_spans(engine, [spans[3], spans[0]], [])


def test_donors_given_to_the_engine_are_checked(
    engines: dict[str, Engine], spans: list[Span]
) -> None:
    engine, resample = engines["gpt2"], [AblateHeads(HEADS, "resample")]
    prompts = [Prompt(span.ids, 5, 6) for span in spans]
    ids = [span.ids for span in spans]
    with pytest.raises(EngineError, match="donors has 4 entries for 5 prompts"):
        engine.measure(prompts, resample, reference=prompts, donors=ids[1:])
    with pytest.raises(EngineError, match="example 2 has 12 tokens and its donor 11"):
        engine.measure(
            prompts, resample, reference=prompts, donors=[*ids[:2], ids[2][:-1], *ids[3:]]
        )
    same = engine.measure(prompts, resample, reference=prompts, donors=ids)
    assert same["kl"].max() < 1e-6  # everyone lends to itself
