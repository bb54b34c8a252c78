"""Three heads zeroed, one restored: the JSON, for a condition here and for a config of the study.

Run: pytest tests/cli/test_partial_patch.py
"""

import json
from pathlib import Path

import pytest

from tests.cli.test_measure import call, refusal
from tests.small_corpora import put_corpora
from tests.study_files import CONDITIONS, HEADS, put_config, put_embedded

ROOT = Path(__file__).parents[2]
TRIO = ["0:0", "0:4", "0:1"]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[str]:
    """Options that name a small corpus and a store."""
    folder = tmp_path_factory.mktemp("places")
    put_corpora(folder / "corpora", rows=(32, 32))
    registry = ROOT / "fixtures" / "models.toml"
    return [
        *("--registry", str(registry), "--corpora", str(folder / "corpora")),
        *("--runs", str(folder / "runs")),
    ]


def test_partial_patch_writes_baseline_zero_and_patched(places, tmp_path, capsys):
    output = tmp_path / "partial.json"
    options = ["--model", "tiny-llama", "--condition", "facts", *places, "--heads", *TRIO]
    assert call("partial-patch", *options, "--output", str(output)) == 0
    found = json.loads(output.read_text())
    base, zero = (found[name]["logit_diff"] for name in ("baseline", "zero"))
    assert set(found["patched"]) == set(TRIO)
    for head in found["patched"].values():
        share = (zero - head["logit_diff"]) / (zero - base)
        assert head["recovery"] is None or head["recovery"] == pytest.approx(share)
    capsys.readouterr()
    assert call("partial-patch", *options, "--output", str(output)) == 2
    assert "exists; give --force" in refusal(capsys)
    single = [*options, "--restore", "0:0", "--output", str(output), "--force"]
    assert call("partial-patch", *single) == 0
    assert set(json.loads(output.read_text())["patched"]) >= {"logit_diff", "recovery"}


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        (["0:0", "0:4", "1:1"], "three heads of one layer"),
        (["0:0", "0:0", "0:1"], "three heads of one layer"),
    ],
)
def test_partial_patch_refuses_heads_that_make_no_trio(places, capsys, heads, said):
    options = ["--model", "tiny-llama", "--condition", "facts", *places, "--heads", *heads]
    assert call("partial-patch", *options) == 2
    assert said in refusal(capsys)


def test_a_head_is_two_numbers(places, capsys):
    options = ["--model", "tiny-llama", "--condition", "facts", *places]
    with pytest.raises(SystemExit):
        call("partial-patch", *options, "--heads", "0:0", "0:4", "zero")
    assert "is not a head; write" in capsys.readouterr().err


def test_partial_patch_restores_only_what_was_zeroed(places, capsys):
    options = ["--model", "tiny-llama", "--condition", "facts", *places, "--heads", *TRIO]
    assert call("partial-patch", *options, "--restore", "0:7") == 2
    assert "not among --heads" in refusal(capsys)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    put_embedded(root, (12, 4))
    return put_config(root, "h1", HEADS, conditions=CONDITIONS[:2])


def test_it_is_called_as_in_the_study_and_writes_what_that_wrote(config, places, capsys):
    options = ["--config", str(config), "--tag", "facts", "--samples", "10", *places]
    heads = ["--layer", "0", "--zero-heads", "7", "0", "5", "--patch-head", "7"]
    assert call("partial-patch", *options, *heads) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["condition"], found["split"]) == ("tiny-gpt2", "facts", "train")
    assert found["n_examples"] == 10
    base, zero, patched = (found[name]["logit_diff"] for name in ("baseline", "zero", "patched"))
    # The planted suppressor: without it, and its two companions, LD is higher.
    assert zero > patched > base - 0.5 and zero > base
    # Ten rows are few clusters: the share may not be known, and then says why.
    recovery = found["patched"]["recovery"]
    assert recovery is None or recovery == pytest.approx((zero - patched) / (zero - base))
    assert recovery is not None or "note" in found["patched"]
    assert call("partial-patch", *options, "--heads", "0:7", "0:0", "0:5", "--restore", "0:7") == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--zero-heads", "7", "0", "5"], "give --layer, too"),
        (["--layer", "0", "--zero-heads", "7", "0"], "--heads 0:7 0:0: give three heads"),
        ([], "--heads none given: give three heads"),
    ],
)
def test_the_studys_options_are_checked(config, places, capsys, options, said):
    given = ["--config", str(config), "--tag", "facts", *places, *options]
    assert call("partial-patch", *given) == 2
    assert said in refusal(capsys)


def test_samples_are_of_a_config(places, capsys):
    options = ["--model", "tiny-llama", "--condition", "facts", *places, "--heads", *TRIO]
    assert call("partial-patch", *options, "--samples", "8") == 2
    assert "is of a --config" in refusal(capsys)
