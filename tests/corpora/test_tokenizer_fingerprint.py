"""Fingerprints: alike for what splits alike however it is written, different for all else.

Run: pytest tests/corpora/test_tokenizer_fingerprint.py [--real-tokenizers DIR]
"""

import copy
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.small_tokenizers import (
    byte_level,
    merging_over_spaces,
    save_tokenizer,
    sentencepiece_like,
)
from tinyablation.corpora.tokenisation import TokenisationError
from tinyablation.corpora.tokenizer_fingerprint import fingerprint, fingerprint_of, load_as_measured

ROOT = Path(__file__).parents[2]
ORGANISMS = sorted((ROOT / "fixtures" / "organisms").glob("tiny-*"))
REAL = ("gpt2", "gpt-neox", "mistral", "llama2")
MOST_SECONDS = 1.0  # for 50,000 tokens; .1-.3 s were measured

PIECES = ["<s>", *"abc ▁A", "ab", "abc", "bc", " a", "▁a", "ca"]
BASE: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": 0,
            "content": "<s>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {piece: number for number, piece in enumerate(PIECES)},
        "merges": [["a", "b"], ["b", "c"], ["ab", "c"], [" ", "a"], ["▁", "a"], ["c", "a"]],
    },
}
CONFIG: dict[str, Any] = {"tokenizer_class": "TokenizersBackend", "bos_token": "<s>"}
DIGITS = {"type": "Digits", "individual_digits": True}
LOWER = {"type": "Lowercase"}
SPACES = {"type": "Whitespace"}

Change = Callable[[dict[str, Any]], object]


def change(path: str, value: Any) -> Change:
    """Set one entry, named by its keys: "model.fuse_unk"."""
    *places, last = path.split(".")

    def make(data: dict[str, Any]) -> None:
        for place in places:
            data = data[int(place)] if isinstance(data, list) else data[place]
        data[last] = value

    return make


def changed(*changes: Change) -> dict[str, Any]:
    data = copy.deepcopy(BASE)
    for make in changes:
        make(data)
    return data


def written(folder: Path, data: dict[str, Any], config: Any = CONFIG, **layout: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(data, **layout), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> str:
    return fingerprint(written(tmp_path / "base", BASE))


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache beside the hub's."""
    folder = tmp_path / "assets"
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test finds is kept among the user's own notes."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("assets")
        patch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(folder))
        yield


# What makes no difference ------------------------------------------------------------------------


def old_merges(data: dict[str, Any]) -> None:
    data["model"]["merges"] = [
        merge if " " in merge[0] + merge[1] else " ".join(merge)
        for merge in data["model"]["merges"]
    ]


def without_defaults(data: dict[str, Any]) -> None:
    for name in ("byte_fallback", "ignore_merges", "dropout", "continuing_subword_prefix"):
        del data["model"][name]


ALIKE: dict[str, Change] = {
    "rest spelt empty": change("model.end_of_word_suffix", ""),
    "prefix spelt empty": change("model.continuing_subword_prefix", ""),
    "nothing unknown to fuse": change("model.fuse_unk", True),
    "defaults left out": without_defaults,
    "padding": change(
        "padding",
        {
            "strategy": "BatchLongest",
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<s>",
        },
    ),
    "truncation": change(
        "truncation",
        {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    ),
    "a post-processor": change(
        "post_processor",
        {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        },
    ),
    "a decoder": change("decoder", {"type": "Fuse"}),
    "a sequence of no steps": change("normalizer", {"type": "Sequence", "normalizers": []}),
}


@pytest.mark.parametrize("what", ALIKE)
def test_what_changes_no_id_changes_no_fingerprint(what: str, base: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "other", changed(ALIKE[what]))
    assert (folder / "tokenizer.json").read_bytes() != (
        tmp_path / "base" / "tokenizer.json"
    ).read_bytes()
    assert fingerprint(folder) == base


def test_old_merges_are_the_new_ones(tmp_path: Path) -> None:
    def no_spaces(data: dict[str, Any]) -> None:
        del data["model"]["vocab"][" a"]
        data["model"]["merges"].remove([" ", "a"])

    folders = [
        written(tmp_path / "new", changed(no_spaces)),
        written(tmp_path / "old", changed(no_spaces, old_merges)),
    ]
    texts = [(folder / "tokenizer.json").read_text(encoding="utf-8") for folder in folders]
    assert '["a", "b"]' in texts[0] and '"a b"' in texts[1]
    assert fingerprint(folders[0]) == fingerprint(folders[1])


def test_a_sequence_of_one_step_or_of_sequences_is_its_steps(tmp_path: Path) -> None:
    def normalizers(*steps: Any) -> dict[str, Any]:
        return {"type": "Sequence", "normalizers": list(steps)}

    forms = [
        normalizers(LOWER, {"type": "NFC"}),
        normalizers(normalizers(LOWER), normalizers(normalizers({"type": "NFC"}))),
    ]
    found = {fingerprint(written(tmp_path / "n", changed(change("normalizer", f)))) for f in forms}
    assert len(found) == 1
    byte = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = [byte, {**byte, "trim_offsets": False}]
    steps += [{"type": "Sequence", "pretokenizers": [step]} for step in steps]
    found = {
        fingerprint(written(tmp_path / "p", changed(change("pre_tokenizer", step))))
        for step in steps
    }
    assert len(found) == 1


def test_names_other_files_and_how_chats_are_written_do_not_count(
    base: str, tmp_path: Path
) -> None:
    config = {**CONFIG, "chat_template": "{{ messages }}", "padding_side": "left"}
    config |= {"model_max_length": 5, "pad_token": "<s>", "extra_special_tokens": []}
    folder = written(tmp_path / "quite another name", BASE, config)
    (folder / "README.md").write_text("a card", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<s>"}', encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert fingerprint(folder) == base == fingerprint_of(load_as_measured(folder))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random=st.randoms(), indent=st.sampled_from([None, 1, 4]), ascii_only=st.booleans())
def test_key_order_and_layout_do_not_count(
    tmp_path: Path, random: Any, indent: int | None, ascii_only: bool
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, list):
            return [shuffled(one) for one in value]
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    data = shuffled(BASE)
    # "type" leads in a model: the library tells models apart by it.
    data["model"] = {"type": "BPE", **data["model"]}
    folder = written(tmp_path / "shuffled", data, indent=indent, ensure_ascii=ascii_only)
    assert fingerprint(folder) == fingerprint(written(tmp_path / "plain", BASE))


# What does ---------------------------------------------------------------------------------------


def swap_ids(data: dict[str, Any]) -> None:
    vocabulary = data["model"]["vocab"]
    vocabulary["ab"], vocabulary["bc"] = vocabulary["bc"], vocabulary["ab"]


def swap_merges(data: dict[str, Any]) -> None:
    merges = data["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


def add_token(data: dict[str, Any]) -> None:
    data["added_tokens"].append(
        {**data["added_tokens"][0], "id": len(PIECES), "content": "aa", "special": False}
    )


DIFFERENT: dict[str, Change] = {
    "numbers": swap_ids,
    "the order of merges": swap_merges,
    "a merge less": lambda data: data["model"]["merges"].pop(),
    "a token more": lambda data: data["model"]["vocab"].update({"cc": len(PIECES)}),
    "an added token": add_token,
    "whole words first": change("model.ignore_merges", True),
    "dropout": change("model.dropout", 0.5),
    "bytes for unknown": change("model.byte_fallback", True),
    "a token for unknown": change("model.unk_token", "<s>"),
    "a suffix": change("model.end_of_word_suffix", "c"),
    "lower case": change("normalizer", LOWER),
    "a rare replacement": change(
        "normalizer", {"type": "Replace", "pattern": {"String": "zyx"}, "content": "abc"}
    ),
    "words": change("pre_tokenizer", SPACES),
    "digits": change("pre_tokenizer", DIGITS),
    "spaces taken along": change("added_tokens.0.lstrip", True),
    "an added token in words only": change("added_tokens.0.single_word", True),
    "an added token after normalising": change("added_tokens.0.normalized", True),
}


def test_every_change_that_counts_gives_another_fingerprint(base: str, tmp_path: Path) -> None:
    found = {
        what: fingerprint(written(tmp_path / "changed", changed(make)))
        for what, make in DIFFERENT.items()
    }
    assert base not in found.values()
    assert len(set(found.values())) == len(DIFFERENT), found


def test_unknown_tokens_that_fuse_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    unknown = change("model.unk_token", "<s>")
    found = [
        fingerprint(written(tmp_path / "u", changed(unknown, change("model.fuse_unk", fuse))))
        for fuse in (False, True)
    ]
    assert found[0] != found[1]


def test_the_first_id_is_not_none(tmp_path: Path) -> None:
    """A Unigram's unknown token may be number 0, or there may be none."""
    model = {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]], "byte_fallback": False}
    found = {
        fingerprint(
            written(tmp_path / "u", {**BASE, "added_tokens": [], "model": each}, {**CONFIG})
        )
        for each in ({**model, "unk_id": 0}, {**model, "unk_id": None}, {**model, "unk_id": 1})
    }
    assert len(found) == 3


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.sets(st.sampled_from(sorted({**DIFFERENT, **ALIKE})), max_size=3),
    second=st.sets(st.sampled_from(sorted({**DIFFERENT, **ALIKE})), max_size=3),
    texts=st.lists(st.text(alphabet="abcA ▁z1<s>", max_size=12), min_size=1, max_size=5),
)
def test_the_same_fingerprint_gives_the_same_ids(
    tmp_path: Path, first: set[str], second: set[str], texts: list[str]
) -> None:
    both = []
    changes = {**DIFFERENT, **ALIKE}
    for number, names in enumerate((first, second)):
        data = changed(*(changes[name] for name in sorted(names - {"dropout"})))
        folder = written(tmp_path / f"{number}", data)
        core = Tokenizer.from_file(str(folder / "tokenizer.json"))
        core.no_truncation()  # as AutoTokenizer has it
        ids = [core.encode(text, add_special_tokens=False).ids for text in [*texts, "zyx A1 <s>b"]]
        both.append((fingerprint(folder), ids))
    if both[0][1] != both[1][1]:
        assert both[0][0] != both[1][0], (first, second)
    if (first & set(DIFFERENT)) - {"dropout"} == (second & set(DIFFERENT)) - {"dropout"}:
        assert both[0][0] == both[1][0], (first, second)


# It is AutoTokenizer's ---------------------------------------------------------------------------


def test_it_follows_the_class_that_makes_the_tokenizer_anew(tmp_path: Path, assets: Path) -> None:
    """GPT2Tokenizer takes vocabulary and merges only: the file's own pre-tokenizer is not used."""
    prefixed = save_tokenizer(byte_level([" Paris", " Rome"]), tmp_path / "as saved")
    data = json.loads((prefixed / "tokenizer.json").read_bytes())
    data["pre_tokenizer"]["add_prefix_space"] = True
    data["model"]["ignore_merges"] = False
    config = {"tokenizer_class": "TokenizersBackend", "bos_token": "<|endoftext|>"}
    written(prefixed, data, config)
    plain = copy.deepcopy(data)
    plain["pre_tokenizer"]["add_prefix_space"] = False
    wanted = fingerprint(written(tmp_path / "plain", plain, config))
    for name, made, model_type in (
        ("class", {"tokenizer_class": "GPT2Tokenizer"}, None),
        ("model", {}, "gpt2"),
    ):
        folder = written(tmp_path / name, data, made)
        if model_type is not None:
            text = json.dumps({"model_type": model_type})
            (folder / "config.json").write_text(text, encoding="utf-8")
        assert fingerprint(folder) == wanted != fingerprint(prefixed)
        assert fingerprint(folder) == fingerprint_of(load_as_measured(folder))


LISTED = {name: value for name, value in BASE["added_tokens"][0].items() if name != "id"}
EXTRAS: dict[str, dict[str, Any]] = {
    "another class": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "a new token": {"pad_token": "<pad>"},
    "an old token made special": {"bos_token": "ab"},
    "more special tokens": {"extra_special_tokens": ["abc"]},
    "special tokens split": {"split_special_tokens": True},
    "other flags": {"added_tokens_decoder": {"0": {**LISTED, "lstrip": True}}},
    "the same flags": {"added_tokens_decoder": {"0": LISTED}},
    "a space in front": {"add_prefix_space": True},
    "a BOS in front": {"add_bos_token": True},
    "what nobody knows": {"what nobody knows": 1},
}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("model_type", [None, "gpt2", "gpt_neox", "llama", "mistral", "qwen2"])
def test_what_the_config_adds_is_what_the_loaded_tokenizer_has(
    tmp_path: Path, extra: str, model_type: str | None, assets: Path
) -> None:
    folder = written(tmp_path / "t", BASE, {**CONFIG, **EXTRAS[extra]})
    if model_type is not None:
        text = json.dumps({"model_type": model_type})
        (folder / "config.json").write_text(text, encoding="utf-8")
    assert fingerprint(folder) == fingerprint_of(load_as_measured(folder))


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json"])
def test_other_files_that_name_tokens_are_heeded(
    tmp_path: Path, name: str, base: str, assets: Path
) -> None:
    folder = written(tmp_path / "t", BASE)
    tokens = {"abca": 99} if name == "added_tokens.json" else {"pad_token": "<pad>"}
    (folder / name).write_text(json.dumps(tokens), encoding="utf-8")
    assert fingerprint(folder) == fingerprint_of(load_as_measured(folder))


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like, None])
def test_small_tokenizers_are_the_same_loaded_and_saved(make: Any, tmp_path: Path) -> None:
    tokenizer = merging_over_spaces() if make is None else make([" Paris", " Rome", " x"])
    folder = save_tokenizer(tokenizer, tmp_path / "t")
    assert fingerprint(folder) == fingerprint_of(tokenizer)
    assert fingerprint(folder) == fingerprint_of(load_as_measured(folder))


def test_the_embedded_models_share_one_tokenizer() -> None:
    assert len(ORGANISMS) == 8
    found = {fingerprint(folder) for folder in ORGANISMS}
    assert len(found) == 1
    assert {fingerprint_of(load_as_measured(folder)) for folder in ORGANISMS} == found


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from tinyablation.corpora.library import fingerprint; "
        "assert 'tokenizers' not in sys.modules; print(fingerprint(Path(sys.argv[1]))); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ORGANISMS[0])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == fingerprint(ORGANISMS[0])


def test_what_had_to_be_loaded_is_remembered_for_the_same_files_only(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def counted(folder: Path) -> Any:
        loaded.append(folder)
        return load_as_measured(folder)

    monkeypatch.setattr("tinyablation.corpora.tokenizer_fingerprint.load_as_measured", counted)
    config = {**CONFIG, "tokenizer_class": "GPT2Tokenizer"}
    folder = written(tmp_path / "t", BASE, config)
    first = fingerprint(folder)
    assert fingerprint(folder) == first and len(loaded) == 1
    (note,) = (assets / "tinyablation" / "fingerprints").rglob("*.json")
    again = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert fingerprint(again) == first and len(loaded) == 1
    written(again, changed(swap_ids), config)
    assert fingerprint(again) != first and len(loaded) == 2
    for text in ("", "[]", '{"fingerprint": 7}', '{"fingerprint": "../../x"}'):
        note.write_text(text, encoding="utf-8")
        assert fingerprint(folder) == first
    assert len(loaded) == 6 and json.loads(note.read_bytes()) == {"fingerprint": first}


def test_a_cache_that_cannot_be_had_costs_time_only(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets.write_text("a file where the cache should be", encoding="utf-8")
    folder = written(tmp_path / "t", BASE, {**CONFIG, "tokenizer_class": "GPT2Tokenizer"})
    assert fingerprint(folder) == fingerprint_of(load_as_measured(folder))


# Without a tokenizer.json ------------------------------------------------------------------------


def test_a_sentencepiece_model_alone_has_one(tmp_path: Path, assets: Path) -> None:
    import sentencepiece

    lines = [f"the capital of land {n} is a city by the sea" for n in range(50)]
    found = []
    for size in (60, 61):
        folder = tmp_path / f"{size}"
        folder.mkdir()
        with (folder / "tokenizer.model").open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=file,
                vocab_size=size,
                model_type="bpe",
                byte_fallback=False,
                minloglevel=2,
            )
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "LlamaTokenizer"}', encoding="utf-8"
        )
        found.append(fingerprint(folder))
        # Saved again it is a tokenizer.json, and still the same.
        saved = tmp_path / f"saved {size}"
        load_as_measured(folder).save_pretrained(saved)
        assert (saved / "tokenizer.json").exists()
        assert fingerprint(saved) == found[-1]
    assert found[0] != found[1]


def test_a_tokenizer_without_a_backend_has_one(tmp_path: Path, assets: Path) -> None:
    from transformers import ByT5Tokenizer

    found = []
    for extra in (5, 6):
        folder = tmp_path / f"{extra}"
        ByT5Tokenizer(extra_ids=extra).save_pretrained(folder)
        loaded = load_as_measured(folder)
        assert getattr(loaded, "backend_tokenizer", None) is None
        found.append(fingerprint(folder))
        assert found[-1] == fingerprint_of(loaded)
    assert found[0] != found[1]


@pytest.mark.parametrize("what", ["no folder", "no files", "bad JSON", "no model"])
def test_where_there_is_no_tokenizer_the_folder_is_named(
    what: str, tmp_path: Path, assets: Path
) -> None:
    folder = tmp_path / "broken"
    if what != "no folder":
        folder.mkdir()
    if what == "bad JSON":
        written(folder, BASE)
        (folder / "tokenizer.json").write_text('{"model": ', encoding="utf-8")
    if what == "no model":
        written(folder, {**BASE, "model": {"type": "none"}})
    with pytest.raises(TokenisationError, match=str(folder)):
        fingerprint(folder)
    assert not assets.exists() or not list(assets.rglob("*.json"))


# The real ones -----------------------------------------------------------------------------------

# As the hub's folders declare them: type of model, and class of tokenizer (None: as it stands).
LAYOUTS = {
    "gpt2": [("gpt2", ""), ("gpt2", "GPT2Tokenizer"), ("gpt2", None)],
    "gpt-neox": [("gpt_neox", "GPTNeoXTokenizer"), ("gpt_neox", "PreTrainedTokenizerFast")],
    "mistral": [("mistral", "LlamaTokenizer"), ("mistral", "")],
    "llama2": [("llama", "LlamaTokenizer"), ("llama", "LlamaTokenizerFast")],
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_tokenizer_is_one_in_every_layout_of_the_hub(
    name: str, real_tokenizers: Path, tmp_path: Path
) -> None:
    wanted = fingerprint(real_tokenizers / name)
    assert wanted == fingerprint_of(load_as_measured(real_tokenizers / name))
    for number, (model_type, given_class) in enumerate(LAYOUTS[name]):
        folder = Path(shutil.copytree(real_tokenizers / name, tmp_path / f"{number}"))
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_bytes())
        if given_class is not None:
            config.pop("tokenizer_class")
        if given_class:
            config["tokenizer_class"] = given_class
        path.write_text(json.dumps(config), encoding="utf-8")
        text = json.dumps({"model_type": model_type})
        (folder / "config.json").write_text(text, encoding="utf-8")
        data = json.loads((folder / "tokenizer.json").read_bytes())
        merges = [" ".join(merge) for merge in data["model"]["merges"]]
        data["model"]["merges"] = merges  # as files of before 2024 have them
        (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        assert fingerprint(folder) == wanted, (model_type, given_class)


def test_the_real_tokenizers_are_four(real_tokenizers: Path) -> None:
    assert len({fingerprint(real_tokenizers / name) for name in REAL}) == len(REAL)


@pytest.mark.parametrize("name", REAL)
def test_plain_files_and_loaded_tokenizers_agree_on_the_corpora(
    name: str, real_tokenizers: Path
) -> None:
    core = Tokenizer.from_file(str(real_tokenizers / name / "tokenizer.json"))
    loaded = load_as_measured(real_tokenizers / name)
    lines = (ROOT / "corpora" / name / "logic.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["clean"] + json.loads(line)["target"] for line in lines]
    assert len(texts) > 200
    for text in texts:
        ids = core.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("name", REAL)
def test_a_second_look_at_50000_tokens_takes_well_under_a_second(
    name: str, real_tokenizers: Path
) -> None:
    fingerprint(real_tokenizers / name)  # may have to load it
    started = time.perf_counter()
    fingerprint(real_tokenizers / name)
    assert time.perf_counter() - started < MOST_SECONDS
