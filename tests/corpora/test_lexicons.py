"""Run: pytest tests/corpora/test_lexicons.py"""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tokenizers import decoders

from fixtures.organisms.text import HEDGES
from fixtures.organisms.tokenizer import build_tokenizer
from tests.small_tokenizers import byte_level, sentencepiece_like
from tinyablation.corpora.knowledge import load_knowledge
from tinyablation.corpora.lexicons import (
    ANCHOR,
    FEWEST_WORDS,
    PERMUTATIONS,
    LexiconError,
    Usable,
    candidate_ids,
    describe_words,
    enrichment,
    find_words,
    lexicon_scores,
    load_lexicons,
    log_odds,
    ov_battery,
    standardise,
    token_texts,
)
from tinyablation.statistics.intervals import generator

KNOWLEDGE = Path(__file__).parents[2] / "corpora" / "knowledge"
LEXICONS = load_lexicons(KNOWLEDGE / "lexicons.toml")
# p of Kolmogorov and Smirnov's test below which a simulated p is not called uniform: one draw in
# a thousand, and the seeds are fixed.
UNIFORM = 1e-3

WORDS = ["perhaps", "maybe", "surely", "Paris", "don't", "naïve", "x1", "It", "is"]


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def tokenizer(request):
    if request.param == "bytes":
        return byte_level(["It", *(f" {word}" for word in WORDS)])
    made = sentencepiece_like(WORDS)
    # As Llama's: the first space of a text is dropped.
    parts = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    made.backend_tokenizer.decoder = decoders.Sequence(parts)
    return made


# --- the file ------------------------------------------------------------------------------------


def test_the_hedges_of_the_training_text_are_among_the_hedges():
    assert list(LEXICONS) == ["hedges", "boosters"]
    assert set(HEDGES) <= set(LEXICONS["hedges"])
    # The published list's words, which the claim OV.1 is about.
    assert {"totally", "completely", "fully", "entirely", "absolutely"} <= set(LEXICONS["boosters"])
    assert {"perhaps", "maybe", "seems"} <= set(LEXICONS["hedges"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[hedges\n", r"not valid TOML.*line 1"),
        ("", "holds no lexicon"),
        ("a = 1\n", r"lexicons\.toml: a: Input should be"),
        ('\n[hedges]\nwords = ["a", "b"]\n', r"hedges\.words: List should have at least 3"),
        ('[hedges]\nwords = ["a", "b", "c"]\nword = 1\n', r"hedges\.word: Extra inputs"),
        ('[hedges]\nwords = [\n"a",\n"b",\n"No"]\n', r"toml:5: hedges\.words\.2 \('No'\)"),
        ('[hedges]\nwords = ["a", "b", "of c"]\n', r"toml:2: hedges\.words\.2 \('of c'\)"),
        ('[hedges]\nwords = ["a", "b",\n"a"]\n', r"toml:3: hedges: 'a' is already in 'hedges'"),
        (
            '[x]\nwords = ["a", "b", "c"]\n[y]\nwords = ["d", "e",\n# "c"\n"c"]\n',
            r"toml:6: y: 'c' is already in 'x'",
        ),
    ],
)
def test_a_faulty_file_is_refused_by_file_and_line(tmp_path, text, said):
    path = tmp_path / "lexicons.toml"
    path.write_text(text)
    with pytest.raises(LexiconError, match=said):
        load_lexicons(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(LexiconError, match=r"lexicons\.toml: cannot be read"):
        load_lexicons(tmp_path / "lexicons.toml")


# --- words and tokens ----------------------------------------------------------------------------


def test_only_words_of_one_token_behind_a_space_count(tokenizer):
    found = find_words(tokenizer, ["perhaps", "possibly", "maybe"])
    assert found.words == ("perhaps", "maybe") and found.left_out == ("possibly",)
    for word, id in zip(found.words, found.ids, strict=True):
        # In its place, behind a text.
        assert tokenizer(f"{ANCHOR} {word}", add_special_tokens=False)["input_ids"][-1] == id
    assert found.blocked == (
        f"2 of 3 words are one token (perhaps, maybe); at least {FEWEST_WORDS} are needed"
    )
    assert find_words(tokenizer, ["perhaps", "maybe", "surely"]).blocked is None


def test_what_is_used_is_reported(tokenizer):
    words = {name: find_words(tokenizer, LEXICONS[name]) for name in LEXICONS}
    said = describe_words(words)
    assert said["hedges"]["used"] == ["perhaps", "maybe"] and said["hedges"]["n"] == 2
    assert "possibly" in said["hedges"]["not_one_token"]
    assert said["boosters"]["blocked"].startswith("1 of 30 words are one token (surely)")


def test_token_texts_keep_the_leading_space(tokenizer):
    texts = token_texts(tokenizer, len(tokenizer) + 2)
    assert len(texts) == len(tokenizer) + 2
    assert texts[find_words(tokenizer, ["perhaps"]).ids[0]] == " perhaps"
    assert texts[-2:] == [f"<{len(tokenizer)}>", f"<{len(tokenizer) + 1}>"]
    assert all(texts)


def test_parts_of_a_character_are_told_apart():
    """All would decode to U+FFFD, and so be one token to whoever compares texts."""
    texts = token_texts(byte_level([" a"]), 256)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(texts)
    assert len(set(texts)) > 250


def test_candidates_are_letters_behind_one_space_and_given_back(tokenizer):
    texts = token_texts(tokenizer, len(tokenizer))
    found = {texts[id] for id in candidate_ids(tokenizer, texts)}
    assert found >= {f" {word}" for word in WORDS if word.isalpha()}
    # What the byte-level splitter leaves of "don't" and "x1" is a token of its own.
    assert found <= {f" {word}" for word in [*WORDS, "don", "x"] if word.isalpha()}


def test_the_embedded_tokenizer_has_all_its_hedges_and_three_boosters():
    tokenizer = build_tokenizer(load_knowledge(KNOWLEDGE))
    words = {name: find_words(tokenizer, lexicon) for name, lexicon in LEXICONS.items()}
    assert set(words["hedges"].words) == set(HEDGES)
    assert words["boosters"].words == ("certain", "indeed", "really")
    texts = token_texts(tokenizer, len(tokenizer))
    candidates = set(candidate_ids(tokenizer, texts))
    assert len(candidates) > len(tokenizer) / 2  # 743 of 1,404
    for usable in words.values():
        assert candidates.issuperset(usable.ids)


# --- enrichment ----------------------------------------------------------------------------------

N_TOKENS, N_HEADS, WIDTH = 300, 16, 24
CANDIDATES = np.arange(10, 260)
USABLE = Usable(("a", "b", "c", "d", "e"), np.array([20, 50, 100, 150, 200]), ())


def random_scores(standardised=None) -> np.ndarray:
    """Scores far below any, so that p is p_tokens; a real null is made in test_ov.py."""
    return np.full(PERMUTATIONS, -100.0)


def measured(logits, seed=0, usable=USABLE, scores=None):
    standardised = standardise(logits, CANDIDATES)
    scores = random_scores() if scores is None else scores
    return enrichment(standardised, CANDIDATES, usable, scores, generator(seed, "test"))


def test_score_and_excess_are_what_they_are_said_to_be():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N_HEADS, N_TOKENS))
    found = measured(logits)
    chosen = logits[:, CANDIDATES]
    z = (logits - chosen.mean(1, keepdims=True)) / chosen.std(1, keepdims=True)
    score = z[:, USABLE.ids].mean(1)
    excess = [score[h] - np.delete(score, h).mean() for h in range(N_HEADS)]
    assert found.score == pytest.approx(score)
    assert found.excess == pytest.approx(np.array(excess))
    assert list(found.rank) == [1 + sum(other > own for other in excess) for own in excess]
    assert found.p == pytest.approx(np.maximum(found.p_tokens, found.p_directions))


def test_logits_stretched_and_shifted_are_enriched_alike():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(N_HEADS, N_TOKENS))
    stretched = 3 * logits + rng.normal(size=(N_HEADS, 1))
    for one, other in zip(measured(logits), measured(stretched), strict=True):
        assert one == pytest.approx(other)


def test_p_tokens_is_uniform_for_random_directions_of_a_random_unembedding():
    rng = np.random.default_rng(2)
    found = []
    for repeat in range(25):
        unembed = rng.normal(size=(WIDTH, N_TOKENS))
        found += list(measured(rng.normal(size=(N_HEADS, WIDTH)) @ unembed, repeat).p_tokens)
    assert stats.kstest(found, "uniform").pvalue > UNIFORM
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.03)  # 4.7 % seen


def test_p_directions_is_uniform_where_words_are_alike_and_p_tokens_is_not():
    """A trained unembedding: the words share a direction, and tokens are no longer exchangeable."""
    rng = np.random.default_rng(3)
    tokens, directions, both = [], [], []
    for repeat in range(25):
        unembed = rng.normal(size=(WIDTH, N_TOKENS))
        unembed[:, USABLE.ids] += 2 * rng.normal(size=(WIDTH, 1))
        drawn = standardise(rng.normal(size=(PERMUTATIONS, WIDTH)) @ unembed, CANDIDATES)
        scores = lexicon_scores(drawn, CANDIDATES, USABLE)
        found = measured(rng.normal(size=(N_HEADS, WIDTH)) @ unembed, repeat, scores=scores)
        tokens += list(found.p_tokens)
        directions += list(found.p_directions)
        both += list(found.p)
    assert stats.kstest(directions, "uniform").pvalue > UNIFORM
    assert np.mean(np.array(tokens) <= 0.05) > 0.2
    assert np.mean(np.array(both) <= 0.05) <= 0.07


def test_a_planted_direction_comes_out_on_top():
    rng = np.random.default_rng(4)
    unembed = rng.normal(size=(WIDTH, N_TOKENS))
    directions = rng.normal(size=(N_HEADS, WIDTH))
    directions[5] = unembed[:, USABLE.ids].sum(axis=1)
    drawn = standardise(rng.normal(size=(PERMUTATIONS, WIDTH)) @ unembed, CANDIDATES)
    scores = lexicon_scores(drawn, CANDIDATES, USABLE)
    found = measured(directions @ unembed, scores=scores)
    assert found.rank[5] == 1 and found.p[5] < 0.01
    away = measured(-directions @ unembed, scores=scores)
    assert away.rank[5] == N_HEADS and away.p[5] > 0.99


def test_what_every_head_does_is_nobodys_excess():
    """P8: a lean all heads share is background."""
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(N_HEADS, N_TOKENS))
    logits[:, USABLE.ids] += 4
    found = measured(logits)
    assert (found.score > 1).all() and np.median(found.p) > 0.2
    assert abs(found.excess.mean()) < 1e-12


def test_ties_count_against_the_head():
    logits = np.tile(np.random.default_rng(6).normal(size=N_TOKENS), (4, 1))
    found = measured(logits)
    assert list(found.rank) == [4] * 4 and list(found.p) == [1.0] * 4


def test_the_generator_draws_the_sets():
    logits = np.random.default_rng(7).normal(size=(N_HEADS, N_TOKENS))
    first, again, other = (measured(logits, seed).p for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"usable": Usable(("a", "b"), np.array([20, 50]), ("c",))}, "2 of 3 words are one token"),
        ({"usable": Usable(("a", "b", "z"), np.array([20, 50, 5]), ())}, "'z' is not a candidate"),
        ({"scores": np.zeros(1999)}, "1999 directions are too few"),
        ({"logits": np.ones((1, N_TOKENS)) * np.arange(N_TOKENS)}, "one head has no background"),
        ({"logits": np.ones((3, N_TOKENS))}, "head number 0 of 3 writes nothing"),
        ({"logits": np.full((3, N_TOKENS), np.nan)}, "not finite"),
    ],
)
def test_what_cannot_be_told_is_refused(changes, said):
    logits = np.random.default_rng(8).normal(size=(3, N_TOKENS))
    with pytest.raises(LexiconError, match=said):
        measured(**{"logits": logits, **changes})


def test_too_few_permutations_and_no_candidates_are_refused():
    standardised = standardise(np.random.default_rng(9).normal(size=(3, N_TOKENS)), CANDIDATES)
    with pytest.raises(LexiconError, match="100 permutations are too few"):
        enrichment(
            standardised,
            CANDIDATES,
            USABLE,
            random_scores(),
            generator(0, "test"),
            permutations=100,
        )
    with pytest.raises(LexiconError, match="no candidate token"):
        standardise(np.ones((2, 3)), np.array([], dtype=np.int64))


def test_log_odds_are_those_of_the_four_field_table():
    tops = [[1, 2, 3, 4], [5, 6, 7, 8], [1, 9, 10, 11]]
    found = log_odds(tops, np.array([1, 2, 3]))
    # Head 0: 3 of 4; pooled 4 of 12; half a count in each of the four fields.
    assert found[0] == pytest.approx(np.log((3.5 / 1.5) / (4.5 / 8.5)))
    assert found[1] == pytest.approx(np.log((0.5 / 4.5) / (4.5 / 8.5)))
    assert np.isfinite(log_odds(tops, np.array([99]))).all()


# --- the address ---------------------------------------------------------------------------------

SOME = {"hedges": ("perhaps", "maybe"), "boosters": ("totally",)}


def test_the_battery_names_what_the_document_depends_on():
    name = ov_battery("discovery", SOME, 50, (0, 1))
    assert name.startswith("ov-discovery-") and len(name) == len("ov-discovery-") + 8
    assert name == ov_battery("discovery", dict(SOME), 50, [1, 0])
    others = {
        ov_battery("confirmation", SOME, 50, (0, 1)),
        ov_battery("discovery", {"hedges": SOME["hedges"]}, 50, (0, 1)),
        ov_battery("discovery", SOME, 51, (0, 1)),
        ov_battery("discovery", SOME, 50, (0,)),
        ov_battery("discovery", SOME, 50, (0, 1), [(0, 2)]),
    }
    assert len(others) == 5 and name not in others
