"""Counterexample search: what fails is found and shrunk, what holds is left, and both say how far.

Run: pytest tests/analysis/test_counterexamples.py
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.organisms.tokenizer import build_tokenizer
from tests.bridging import make_prompts, run_hooked
from tests.conftest import FAMILIES
from tinyablation.analysis.counterexamples import (
    DRAWS,
    MOST_FOUND,
    N_GRAMMAR,
    Ablation,
    BoundaryError,
    Reading,
    search,
    survey,
)
from tinyablation.corpora.grammar import Grammar, Sentence, grammar_of
from tinyablation.corpora.knowledge import load_knowledge
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.records.trust import Boundary
from tinyablation.statistics.intervals import generator

ROOT = Path(__file__).parents[2]
NOISE = 1e-3
HOLDS, FAILS = Reading(5.0, 1.0), Reading(5.0, -1.0)
# One prompt alone, on the bridge's own modules and hooks, against the engine's batches, in logits:
# the largest difference seen over the 20 counterexamples of tiny-gpt2 is 2e-5.
BRIDGE_TOLERANCE = 1e-3
# The same rows in a batch of another size, in logits: 1e-6 was seen, and effects are .1 and more.
GRAIN = 1e-5


class Fake:
    """A model on which a claim fails where it is told to; calls: how many sentences were asked."""

    def __init__(self, reading: Callable[[Sentence], Reading]) -> None:
        self.reading = reading
        self.calls: list[int] = []

    def __call__(self, sentences: Sequence[Sentence]) -> list[Reading]:
        self.calls.append(len(sentences))
        return [self.reading(sentence) for sentence in sentences]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return build_tokenizer(load_knowledge(ROOT / "corpora" / "knowledge"))


@pytest.fixture(scope="module")
def facts(tiny: Any) -> Grammar:
    return grammar_of("facts", load_knowledge(ROOT / "corpora" / "knowledge"), tiny)


@pytest.fixture(scope="module")
def logic(tiny: Any) -> Grammar:
    return grammar_of("logic", load_knowledge(ROOT / "corpora" / "knowledge"), tiny)


def fails_where(told: Callable[[Sentence], bool]) -> Fake:
    return Fake(lambda sentence: FAILS if told(sentence) else HOLDS)


def look(grammar: Grammar, fake: Fake, *, n: int = N_GRAMMAR, seed: int = 0) -> Boundary:
    surveyed = survey(grammar, fake, seed=seed, n=n)
    return search(grammar, fake, surveyed, rule="it does", noise=NOISE, seed=seed)


def test_a_prefix_on_which_the_claim_fails_is_found_and_shrunk(facts: Grammar) -> None:
    found = look(facts, fails_where(lambda s: s.choices["prefix"] == "clear"))
    assert (found.rule, found.grammar, found.searched) == ("it does", facts.size, N_GRAMMAR)
    first = found.found[0]
    assert first.prompt == "Clearly, the capital of France is"
    assert (first.target, first.foil) == (" Paris", " Rome")
    assert (first.clean_ld, first.delta, first.shrunk) == (5.0, -1.0, True)
    assert list(first.choices) == ["prefix", "frame", "relation", "subject", "foil"]
    assert list(first.choices.values()) == ["clear", "is", "capital", "France", "Rome"]
    # Nothing outside of the prefix fails, so there is one more of each other frame.
    assert [one.choices["prefix"] for one in found.found] == ["clear"] * 3
    assert [one.choices["frame"] for one in found.found] == ["is", "known", "simply"]
    assert len({one.choices["relation"] for one in found.found}) == 3
    failed, measured = found.parts["prefix"]["clear"]
    assert failed == measured == found.failed > 50
    others = {name: part for name, part in found.parts["prefix"].items() if name != "clear"}
    assert len(others) == 9 and all(part[0] == 0 < part[1] for part in others.values())


def test_parts_count_every_measured_prompt_once_under_each_choice(facts: Grammar) -> None:
    found = look(facts, fails_where(lambda s: s.choices["relation"] in ("color", "sum")))
    assert set(found.parts) == {"prefix", "frame", "relation"}  # subjects and foils are too many
    for options in found.parts.values():
        assert sum(failed for failed, _ in options.values()) == found.failed
        assert sum(measured for _, measured in options.values()) == found.searched
    failing = [name for name, (failed, _) in found.parts["relation"].items() if failed]
    assert failing == ["color", "sum"]
    assert list(found.parts["prefix"])[:3] == ["plain", "short", "note"]  # as the tables have them
    assert {one.choices["relation"] for one in found.found} == {"color", "sum"}


def test_a_later_choice_keeps_one_entry_for_each_option(logic: Grammar) -> None:
    """The index of the second relation depends on the first, its name does not."""
    found = look(logic, fails_where(lambda s: s.choices["second relation"] == "color"), n=200)
    parts = found.parts["second relation"]
    assert len(parts) == 10
    assert [name for name, (failed, _) in parts.items() if failed] == ["color"]
    assert sum(measured for _, measured in parts.values()) == 200


def test_where_nothing_fails_the_whole_grammar_is_drawn_from_too(facts: Grammar) -> None:
    fake = fails_where(lambda s: False)
    found = look(facts, fake)
    assert found.found == [] and found.failed == 0
    # What Hypothesis draws besides: nearly all of it new, each measured alone.
    assert N_GRAMMAR + DRAWS // 2 < found.searched <= N_GRAMMAR + DRAWS
    assert fake.calls == [N_GRAMMAR] + [1] * (found.searched - N_GRAMMAR)


def test_a_failure_outside_of_the_sample_is_found_and_counted(facts: Grammar) -> None:
    def told(sentence: Sentence) -> bool:
        return sentence.choices["relation"] in ("sum", "organ")

    sample = [s for s in facts.sample(60, generator(0, "outside")) if not told(s)]
    fake = fails_where(told)
    found = search(facts, fake, [(s, HOLDS) for s in sample], rule="it does", noise=NOISE, seed=0)
    assert found.found[0].prompt == "The value of one plus one is"
    assert (found.found[0].target, found.found[0].foil) == (" two", " three")
    assert found.failed == 1
    assert len(sample) < found.searched < len(sample) + DRAWS
    assert sum(failed for failed, _ in found.parts["relation"].values()) == 1


@pytest.mark.parametrize("subjects", [("Spain", "Russia", "Peru"), ("Chile",), ("Iran", "Japan")])
def test_no_single_choice_of_a_shrunk_prompt_could_be_plainer(
    facts: Grammar, subjects: tuple[str, ...]
) -> None:
    """Failures that lie scattered: an index may fail where the half of it does not."""

    def told(s: Sentence) -> bool:
        return s.choices["subject"] in subjects and s.indices[0] * s.indices[1] in (2, 6, 7, 14)

    fake = fails_where(told)
    found = look(facts, fake, n=3000)
    assert found.failed > 0
    first = facts.named(found.found[0].choices)
    assert first is not None and told(first)
    assert not any(told(simpler) for simpler in facts.simpler(first))


def test_counterexamples_are_about_different_things_in_different_words(logic: Grammar) -> None:
    found = look(logic, fails_where(lambda s: s.indices[0] % 2 == 1), n=100)
    assert len(found.found) == MOST_FOUND
    words = [(one.choices["prefix"], one.choices["frame"]) for one in found.found]
    themes = [tuple(one.choices[name] for name in logic.theme) for one in found.found]
    assert len(set(words)) == len(set(themes)) == MOST_FOUND


@pytest.mark.parametrize(
    "reading",
    [
        Reading(-2.0, -1.0),  # the model does not know the answer
        Reading(NOISE, -1.0),  # nor can it be told to
        Reading(5.0, -NOISE),  # within the noise
        Reading(5.0, 0.0),
    ],
)
def test_incompetence_and_noise_are_no_failures(facts: Grammar, reading: Reading) -> None:
    found = look(facts, Fake(lambda sentence: reading), n=100)
    assert found.failed == 0 and found.found == []


def test_just_beyond_the_noise_is_a_failure(facts: Grammar) -> None:
    found = look(facts, Fake(lambda sentence: Reading(2 * NOISE, -2 * NOISE)), n=100)
    assert found.failed == found.searched == 100
    assert found.found[0].prompt == "The capital of France is"


@pytest.mark.slow
def test_the_same_seed_finds_the_same(facts: Grammar) -> None:
    def told(s: Sentence) -> bool:
        return sum(s.indices) % 7 == 3

    first = look(facts, fails_where(told), n=100, seed=3)
    assert first.found and look(facts, fails_where(told), n=100, seed=3) == first
    assert look(facts, fails_where(told), n=100, seed=4).parts != first.parts
    nothing = fails_where(lambda s: False)
    assert look(facts, nothing, n=100) == look(facts, nothing, n=100)


def test_shrinking_asks_in_batches(facts: Grammar) -> None:
    """Alone each prompt costs 10 ms and more; 71 were asked for alone before there were corners."""
    fake = fails_where(lambda s: s.choices["prefix"] == "clear" and s.choices["frame"] != "is")
    found = look(facts, fake)
    assert len(found.found) == 2
    assert fake.calls.count(1) < 40


def test_what_cannot_be_searched_is_said(facts: Grammar) -> None:
    with pytest.raises(BoundaryError, match="The capital of France is.*nan.*is not finite"):
        search(
            facts,
            fails_where(lambda s: False),
            [(facts.at((0,) * 5), Reading(1.0, float("nan")))],  # type: ignore[list-item]
            rule="",
            noise=NOISE,
        )
    with pytest.raises(BoundaryError, match="0 readings for"):
        search(facts, lambda sentences: [], [], rule="", noise=NOISE)


def test_an_error_while_measuring_comes_out(facts: Grammar) -> None:
    class Broken(Exception):
        pass

    def measure(sentences: Sequence[Sentence]) -> list[Reading]:
        raise Broken("the device is gone")

    with pytest.raises(Broken, match="the device is gone"):
        search(facts, measure, [], rule="", noise=NOISE)


# --- on models -----------------------------------------------------------------------------------


def as_sentences(prompts: Sequence[Prompt]) -> list[Sentence]:
    return [Sentence((n,), {}, "", "", "", prompt) for n, prompt in enumerate(prompts)]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_ablation_is_measured_as_the_engine_does(engines: Any, family: str) -> None:
    prompts = make_prompts([3, 5, 5, 8], seed=1)
    engine = engines[family]
    table = engine.measure(prompts, [AblateHeads(((0, 1),)), AblateHeads(((0, 0), (1, 2)))])
    clean, one, two = table["logit_diff"].to_numpy().reshape(3, -1)
    suppresses = Ablation(((0, 1),)).measure(engine, as_sentences(prompts))
    leads = Ablation(((0, 1),), over=((0, 0), (1, 2))).measure(engine, as_sentences(prompts))
    for found, delta in ((suppresses, one - clean), (leads, one - two)):
        assert [r.clean_ld for r in found] == clean.tolist()
        assert [r.delta for r in found] == pytest.approx(delta.tolist(), abs=GRAIN)


def test_rules_say_what_fails() -> None:
    assert Ablation(((0, 2), (0, 7))).rule == (
        "the model knows the answer (clean LD above the noise), but ablating 0:2 and 0:7 lowers LD "
        "(delta below 0 by more than the noise)"
    )
    assert "ablating 0:2 raises LD less than ablating 1:3" in Ablation(((0, 2),), ((1, 3),)).rule


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["facts", "negation", "counterfactual", "logic"])
def test_listed_prompts_fail_when_each_is_measured_alone_by_bridge_hooks(condition: str) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    from tinyablation.engine.engine import Engine
    from tinyablation.models.loading import load_model
    from tinyablation.models.registry import load_registry

    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-gpt2"]
    engine = Engine(load_model(entry))
    loaded = load_model(entry)  # the bridge's own, as it hooks the modules
    grammar = grammar_of(
        condition,
        load_knowledge(ROOT / "corpora" / "knowledge"),
        loaded.tokenizer,
        bos=loaded.bos_id,
    )
    ablation = Ablation(((0, 7),))  # the planted head

    def measure(sentences: Sequence[Sentence]) -> list[Reading]:
        return ablation.measure(engine, sentences)

    surveyed = survey(grammar, measure)
    found = search(grammar, measure, surveyed, rule=ablation.rule, noise=NOISE)
    assert len(found.found) == MOST_FOUND and 0 < found.failed < found.searched / 2
    bridge = build_bridge_from_module(
        loaded.model,
        type(loaded.model).__name__,
        hf_config=loaded.model.config,
        tokenizer=loaded.tokenizer,
    )

    def without_the_head(z: torch.Tensor) -> torch.Tensor:
        heads = z.reshape(*z.shape[:2], loaded.facts.n_heads, -1)
        heads[:, :, 7] = 0
        return heads.reshape(z.shape)

    for one in found.found:
        sentence = grammar.named(one.choices)
        assert sentence is not None and sentence.text == one.prompt
        ids, target, foil = sentence.prompt
        clean, changed = (
            run_hooked(bridge, ids, hooks)
            for hooks in ({}, {"blocks.0.attn.hook_z": without_the_head})
        )
        clean_ld = float(clean[target] - clean[foil])
        delta = float(changed[target] - changed[foil]) - clean_ld
        assert clean_ld == pytest.approx(one.clean_ld, abs=BRIDGE_TOLERANCE)
        assert delta == pytest.approx(one.delta, abs=BRIDGE_TOLERANCE)
        assert clean_ld > 0 > delta, one.prompt
