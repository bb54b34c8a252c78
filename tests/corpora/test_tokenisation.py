"""One token in context: what counts as one, and what is refused.

Run: pytest tests/corpora/test_tokenisation.py
"""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.small_tokenizers import byte_level, merging_over_spaces, sentencepiece_like
from tinyablation.corpora.examples import Example
from tinyablation.corpora.tokenisation import (
    Encoder,
    Prompt,
    TokenisationError,
    answer_id,
    encode,
    encode_examples,
    encode_prompt,
    is_one_token,
    load_tokenizer,
)

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def words() -> Any:
    return byte_level([PROMPT, " Paris", " Rome", " Lima"])


@pytest.fixture(scope="module")
def pieces() -> Any:
    return sentencepiece_like([*PROMPT.split(), "Paris", "Rome"])


def test_a_word_of_the_vocabulary_is_one_token_after_its_prompt(words: Any) -> None:
    assert answer_id(words, PROMPT, " Paris") == words.convert_tokens_to_ids("ĠParis")
    assert is_one_token(words, PROMPT, " Paris")


def test_a_lone_word_of_a_sentencepiece_tokenizer_has_a_spare_space(pieces: Any) -> None:
    """P19: a check of " Paris" alone would drop an answer that is one token in its place."""
    assert len(encode(pieces, " Paris")) == 2
    assert answer_id(pieces, PROMPT, " Paris") == pieces.convert_tokens_to_ids("▁Paris")


def test_an_answer_of_more_tokens_is_refused(words: Any) -> None:
    with pytest.raises(TokenisationError, match="' Oslo' is 5 tokens after 'The capital"):
        answer_id(words, PROMPT, " Oslo")
    assert not is_one_token(words, PROMPT, " Oslo")


def test_an_empty_answer_is_refused(words: Any) -> None:
    with pytest.raises(TokenisationError, match="is 0 tokens"):
        answer_id(words, PROMPT, "")


def test_an_answer_that_moves_the_tokens_before_it_is_refused() -> None:
    """P19 the other way: alone it would pass, as "ab" and "ab c" have two tokens each."""
    tokenizer = merging_over_spaces()
    assert len(encode(tokenizer, "ab")) == len(encode(tokenizer, "ab c")) == 2
    with pytest.raises(TokenisationError, match="' c' changes how the prompt"):
        answer_id(tokenizer, "ab", " c")


def test_an_unknown_answer_is_refused() -> None:
    """All unknown words share one id, and LD between two of them would be nothing."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "is": 1, "Paris": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert is_one_token(tokenizer, "is", " Paris")
    with pytest.raises(TokenisationError, match="' Rome' is unknown to the tokenizer"):
        answer_id(tokenizer, "is", " Rome")


def test_answers_of_the_same_token_are_refused(words: Any) -> None:
    with pytest.raises(TokenisationError, match="' Rome' and ' Rome' are the same token"):
        encode_prompt(words, PROMPT, " Rome", " Rome", None)


def test_bos_comes_in_front_only_where_the_policy_says_so(words: Any) -> None:
    plain = encode_prompt(words, PROMPT, " Paris", " Rome", None)
    assert plain.ids == encode(words, PROMPT) and len(plain.ids) == 5
    led = encode_prompt(words, PROMPT, " Paris", " Rome", words.bos_token_id)
    assert led == Prompt((words.bos_token_id, *plain.ids), plain.target, plain.foil)


def test_examples_are_encoded_by_side_with_the_answers_of_the_clean_side(words: Any) -> None:
    row = Example(
        clean=PROMPT,
        corrupt="The capital of Italy is",
        null="The capital of something is",
        target=" Paris",
        foil=" Rome",
        fact_id="capital/France",
        template_id="plain.is",
        cluster_id="capital/France~Italy",
        cell="",
        aligned=False,
    )
    other = encode_examples(words, [row], None, side="corrupt")[0]
    assert other.ids == encode(words, row.corrupt)
    assert (other.target, other.foil) == (
        answer_id(words, row.corrupt, " Paris"),
        answer_id(words, row.corrupt, " Rome"),
    )
    clean, null = (encode_examples(words, [row], None, side=side)[0] for side in ("clean", "null"))
    assert clean.ids == encode(words, row.clean) and null.ids == encode(words, row.null)
    assert encode_examples(words, [], None) == []


def test_an_encoder_splits_a_text_once_and_as_its_tokenizer_does(words: Any) -> None:
    asked: list[str] = []

    class Counting:
        unk_token_id = words.unk_token_id

        def __call__(self, text: str, **options: Any) -> Any:
            asked.append(text)
            return words(text, **options)

    remembering = Encoder(Counting())  # type: ignore[arg-type]
    for _ in range(2):
        assert encode(remembering, PROMPT) == encode(words, PROMPT)
        assert encode_prompt(remembering, PROMPT, " Paris", " Rome", 7) == encode_prompt(
            words, PROMPT, " Paris", " Rome", 7
        )
        with pytest.raises(TokenisationError, match="' Oslo' is 5 tokens after 'The capital"):
            answer_id(remembering, PROMPT, " Oslo")
    assert asked == [PROMPT, f"{PROMPT} Paris", f"{PROMPT} Rome", f"{PROMPT} Oslo"]


@pytest.mark.parametrize("kind", ["bytes", "pieces", "merging", "padding", "cutting"])
def test_many_texts_split_at_once_are_each_as_alone(words: Any, pieces: Any, kind: str) -> None:
    """Also by tokenizers whose files ask for padding, or for texts to be cut."""
    made: Any = {"pieces": pieces, "merging": merging_over_spaces()}.get(kind)
    made = made or byte_level([PROMPT, " Paris"])
    if kind == "padding":
        made.backend_tokenizer.enable_padding(pad_id=3, length=64)
    if kind == "cutting":
        made.backend_tokenizer.enable_truncation(2)
    texts = ["ab c", "a", "", "ab c", "b c b"] if kind == "merging" else [PROMPT, "", "Paris", " x"]
    encoder = Encoder(made)
    encoder.read(iter(texts))
    encoder.tokenizer = None  # type: ignore[assignment]  # nothing is left to split
    assert [encoder.ids(text) for text in texts] == [encode(made, text) for text in texts]


def test_a_saved_tokenizer_is_loaded_from_its_folder(words: Any, tmp_path: Path) -> None:
    words.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert encode(loaded, f"{PROMPT} Paris") == encode(words, f"{PROMPT} Paris")


@pytest.mark.parametrize(
    "source", ["./nowhere", "/no/such/folder", "~/nowhere-at-all", "a/b/c", ""]
)
def test_a_missing_folder_is_said_without_asking_the_hub(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", asked)
    with pytest.raises(TokenisationError, match="no such folder; name a folder or a hub id"):
        load_tokenizer(source)


def test_a_broken_tokenizer_is_a_typed_error_of_one_line(words: Any, tmp_path: Path) -> None:
    words.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{ not json", encoding="utf-8")
    with pytest.raises(TokenisationError, match="no tokenizer can be loaded: .") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(TokenisationError, match="no tokenizer can be loaded: ."):
        load_tokenizer(str(tmp_path))
