"""The commands over runs: what they write, and what they refuse in one line.

Run: pytest tests/cli/test_measure.py
"""

import json
import shutil
from pathlib import Path

import pandas
import pytest

from tests.small_corpora import put_corpora
from tinyablation.__main__ import main
from tinyablation.runs.across_conditions import HEAD_MATRIX, LAYER_MATRIX

ROOT = Path(__file__).parents[2]
TRIO = ["0:0", "0:4", "0:1"]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[str]:
    """Options that name a small corpus of two conditions and a store."""
    folder = tmp_path_factory.mktemp("places")
    put_corpora(folder / "corpora", conditions=("facts", "negation"), rows=(32, 32))
    registry = ROOT / "fixtures" / "models.toml"
    return [
        *("--registry", str(registry), "--corpora", str(folder / "corpora")),
        *("--runs", str(folder / "runs")),
    ]


def call(name: str, *options: str) -> int:
    return main([name, *options])


def measured(places, capsys, *options: str) -> list[Path]:
    assert call("measure", "--model", "tiny-llama", *places, *options) == 0
    return [Path(line) for line in capsys.readouterr().out.split()]


def refusal(capsys) -> str:
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("error: ")
    return said.err.splitlines()[-1]


@pytest.mark.parametrize("name", ["measure", "seeds", "rebuild-cross-condition"])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"python -m tinyablation {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--battery", "pairs", "--layer", "0"], 1 + 28),
        pytest.param(["--battery", "sets", "--heads", *TRIO], 1 + 7, marks=pytest.mark.slow),
        (["--battery", "path", "--heads", "0:4"], 1 + 5),
        pytest.param(["--battery", "patch-reverse"], None, marks=pytest.mark.slow),
    ],
)
def test_every_battery_can_be_measured(places, capsys, options, rows):
    (run,) = measured(places, capsys, "--condition", "facts", *options)
    table = pandas.read_parquet(run / "metrics" / "per_example.parquet")
    assert rows in (None, table["intervention"].nunique())
    assert f"-{options[1].split('-')[0]}" in run.name


def test_a_battery_that_needs_heads_says_so_before_anything_is_loaded(places, capsys):
    options = ["--model", "tiny-llama", "--condition", "facts", *places]
    assert call("measure", *options, "--battery", "path") == 2
    assert "battery 'path' needs --heads" in refusal(capsys)


@pytest.mark.slow
def test_the_matrices_over_conditions_are_rebuilt_from_single_runs(places, capsys):
    runs = [
        measured(places, capsys, "--condition", condition, "--battery", "zero")[0]
        for condition in ("facts", "negation")
    ]
    assert call("rebuild-cross-condition", *map(str, runs)) == 0
    folder = Path(capsys.readouterr().out.strip())
    matrix = folder / "artifacts" / "cross_condition" / "head_matrix.parquet"
    assert set(pandas.read_parquet(matrix)["condition"]) == {"facts", "negation"}
    whole = pandas.read_parquet(folder / HEAD_MATRIX)
    shutil.rmtree(folder)
    assert call("rebuild-cross-condition", *map(str, reversed(runs))) == 0
    assert Path(capsys.readouterr().out.strip()) == folder
    assert pandas.read_parquet(folder / HEAD_MATRIX).equals(whole)
    assert pandas.read_parquet(folder / LAYER_MATRIX).empty  # no layer was patched in these runs


def test_two_runs_of_one_condition_make_no_matrix(places, capsys):
    runs = measured(
        places, capsys, "--condition", "facts", "--battery", "baseline", "--seeds", "0", "1"
    )
    assert call("rebuild-cross-condition", *map(str, runs)) == 2
    assert "are of one condition" in refusal(capsys)


@pytest.mark.slow
def test_seeds_that_draw_examples_are_summarised_and_others_refused(places, capsys):
    """Pitfall P11: seeds that draw nothing gave the study intervals of no width."""
    common = ["--condition", "facts", "--battery", "baseline", "--seeds", "0", "1", "2"]
    drawn = measured(places, capsys, *common, "--share", "0.5")
    assert len(set(drawn)) == 3
    assert call("seeds", *map(str, drawn), "--metrics", "logit_diff", "entropy") == 0
    folder = Path(capsys.readouterr().out.strip())
    summary = json.loads((folder / "metrics" / "summary.json").read_text())
    figure = summary["logit_diff"]
    assert len(set(figure["values"])) == 3
    assert figure["ci95"][0] < figure["mean"] < figure["ci95"][1]
    pandas.read_parquet(folder / "metrics" / "head_impact.parquet")
    same = measured(places, capsys, *common)
    assert call("seeds", *map(str, same)) == 2
    assert "drew nothing" in refusal(capsys)


def test_runs_of_two_folders_are_refused(places, tmp_path, capsys):
    (run,) = measured(places, capsys, "--condition", "facts", "--battery", "baseline")
    shutil.copytree(run, tmp_path / run.name)
    assert call("seeds", str(run), str(tmp_path / run.name)) == 2
    assert "runs of one folder" in refusal(capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "-1"], "seed -1: give 0 or more"),
        (["--seeds", "0", "-2"], "seed -2: give 0 or more"),
        (["--share", "2"], "share of 2.0"),
        (["--device", "abacus"], "no device is called 'abacus'"),
        (["--battery", "h1"], "no battery 'h1'"),
        (["--revision", "v1"], "which has no revision 'v1'"),
        (["--condition", "fact"], "has no corpus 'fact'; there are: facts, negation"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(places, capsys, options, said):
    common = ["--condition", "facts", "--battery", "baseline"]
    assert call("measure", "--model", "tiny-llama", *places, *common, *options) == 2
    assert said in refusal(capsys)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("tiny-lama", "did you mean 'tiny-llama'"),
        ("./tiny-llama", "./tiny-llama: no such folder"),
        ("somebody/model", "does not have somebody/model, and HF_HUB_OFFLINE is set"),
    ],
)
def test_a_model_that_cannot_be_had_is_said_in_one_line(places, capsys, model, said, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert call("measure", "--model", model, "--condition", "facts", *places) == 2
    assert said in refusal(capsys)


@pytest.mark.slow
def test_a_folder_is_measured_in_the_dtype_that_is_asked_for(places, tmp_path, capsys):
    """Without an entry, its corpora are found by its tokenizer; the address names the dtype."""
    folder = tmp_path / "My Llama"
    shutil.copytree(ROOT / "fixtures" / "organisms" / "tiny-llama", folder)
    common = ["--condition", "facts", "--battery", "baseline", *places, "--device", "cpu"]
    for dtype in ("float32", "bfloat16"):
        assert call("measure", "--model", str(folder), *common, "--dtype", dtype) == 0
        run = Path(capsys.readouterr().out.strip())
        config = json.loads((run / "config.json").read_text())
        assert run.name.startswith("my-llama-baseline-facts_")
        assert (config["dtype"], config["device"], config["bos"]) == (dtype, "cpu", True)


def test_a_folder_needs_no_registry_file(places, tmp_path, capsys):
    options = ["--model", str(ROOT / "fixtures" / "organisms" / "tiny-llama"), *places]
    options += ["--condition", "facts", "--battery", "baseline", "--registry"]
    assert call("measure", *options, str(tmp_path / "nowhere.toml")) == 0
    assert "tiny-llama-baseline-facts_" in capsys.readouterr().out
    unlisted = ["--model", "tiny-llama", *places, "--condition", "facts"]
    assert call("measure", *unlisted, "--registry", str(tmp_path / "nowhere.toml")) == 2
    assert "nowhere.toml: cannot be read" in refusal(capsys)
