"""Run: pytest tests/runs/test_address.py"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.synthetic_runs import make_config
from tinyablation.errors import RunError
from tinyablation.files.hashes import canonical_json, digest
from tinyablation.records.conditions import OWN_NAME
from tinyablation.runs.address import (
    NO_CORPUS,
    RunConfig,
    parent_name,
)


def test_the_name_holds_model_battery_condition_and_hash():
    config = make_config()
    assert config.name == f"tiny-gpt2-h1-facts_{config.hash}"
    assert len(config.hash) == 12 and set(config.hash) <= set("0123456789abcdef")


def test_the_hash_is_the_same_on_every_machine():
    # Written out: a change of canonical form would orphan every run directory there is.
    shown = make_config().model_dump(exclude={"selection", "wordings"})
    assert make_config().hash == digest(shown)[:12] == "86656ebc94ff"


def test_addresses_without_selection_and_wordings_are_those_of_before():
    """Of the code before there were these fields: every run and its parent is found again."""
    assert make_config(share=0.5, split="discovery", per_cluster=2).hash == "14e7c6dbd989"
    both = {"facts": make_config(), "logic": make_config(condition="logic", corpus_hash="e" * 64)}
    assert parent_name(both) == "tiny-gpt2-h1_2ce1c6ede6b3"
    assert make_config(selection=None) == make_config()
    chosen = {make_config(selection=token).hash for token in (None, "0" * 12, "1" * 12)}
    assert len(chosen) == 3
    assert make_config(wordings=None) == make_config()
    assert make_config(wordings="one").hash != make_config(selection="one").hash


def test_a_reading_without_a_corpus_has_an_address_without_one():
    """And nothing else has: a forgotten hash would let two corpora share an address."""
    none = {"condition": NO_CORPUS, "corpus_hash": None, "split_hash": None}
    config = make_config(**none)
    assert not config.has_corpus and make_config().has_corpus
    assert config.name == f"tiny-gpt2-h1-no-corpus_{config.hash}"
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    for field in none:
        kept = {name: value for name, value in none.items() if name != field}
        with pytest.raises(ValidationError, match="both are needed, but neither under"):
            make_config(**kept)
    assert not OWN_NAME.fullmatch(NO_CORPUS)  # no condition of a user's file has this name


def test_runs_on_other_selections_have_one_parent():
    """What a model knows differs by condition; their heads are comparable all the same."""
    both = {
        "facts": make_config(selection="0" * 12, per_cluster=2),
        "logic": make_config(condition="logic", selection="1" * 12, wordings="one"),
    }
    assert parent_name(both) != parent_name({**both, "logic": make_config(condition="logic")})


@pytest.mark.parametrize("field", sorted(RunConfig.model_fields))
def test_every_field_moves_the_hash(field):
    others = {"seed": 1, "bos": True, "dtype": "bfloat16", "device": "cuda"}
    other = {**others, "share": 0.5, "per_cluster": 2}.get(field, "other")
    assert make_config(**{field: other}).hash != make_config().hash


def test_the_hash_does_not_depend_on_line_endings_of_a_stored_config():
    text = json.dumps(make_config().model_dump(), indent=2)
    again = RunConfig.model_validate_json(text.replace("\n", "\r\n"))
    assert again == make_config() and again.hash == make_config().hash


@pytest.mark.parametrize("path", ["/home/me/corpus.jsonl", "..\\corpus", "a b", "", "../x"])
@pytest.mark.parametrize("field", ["corpus_hash", "weight_hash", "model", "condition"])
def test_no_path_can_become_part_of_an_address(field, path):
    with pytest.raises(ValidationError, match=field):
        make_config(**{field: path})


def test_device_is_its_kind_and_dtype_its_name():
    assert make_config(device="cuda:3") == make_config(device="cuda")
    assert make_config(dtype="torch.float32") == make_config()


@pytest.mark.parametrize("changes", [{"seed": True}, {"seed": -1}, {"bos": 1}, {"unknown": "x"}])
def test_loose_values_and_unknown_fields_are_refused(changes):
    with pytest.raises(ValidationError):
        make_config(**changes)


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=5))
def test_the_digest_does_not_depend_on_key_order(value):
    assert digest(value) == digest(dict(reversed(value.items())))


def test_non_finite_numbers_have_no_canonical_form():
    with pytest.raises(RunError, match="JSON"):
        canonical_json({"value": float("nan")})


def test_the_parent_name_does_not_depend_on_order_but_on_every_child():
    one, two = make_config(), make_config(condition="logic", corpus_hash="e" * 64)
    name = parent_name({"facts": one, "logic": two})
    assert name == parent_name({"logic": two, "facts": one})
    assert name.startswith("tiny-gpt2-h1_")
    assert name != parent_name({"facts": one})
    other = make_config(condition="logic", corpus_hash="f" * 64)
    assert name != parent_name({"facts": one, "logic": other})


def test_children_that_are_not_comparable_are_refused():
    with pytest.raises(RunError, match="device"):
        parent_name(
            {
                "facts": make_config(),
                "logic": make_config(condition="logic", device="cuda"),
            }
        )
    with pytest.raises(RunError, match="given as condition 'logic'"):
        parent_name({"logic": make_config()})
    with pytest.raises(RunError, match="nothing to combine"):
        parent_name({})
