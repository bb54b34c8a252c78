"""Run: pytest tests/cli/test_ov.py"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_corpora import put_corpora
from tests.study_files import CONDITIONS, HEADS, put_config, put_embedded
from tinyablation.__main__ import main

ROOT = Path(__file__).parents[2]
N_PROMPTS = 6


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """A few discovery rows of the embedded facts, and twice as many confirmation rows."""
    folder = tmp_path_factory.mktemp("corpora")
    put_corpora(folder, rows=(N_PROMPTS, 2 * N_PROMPTS))
    (folder / "knowledge").mkdir()
    shutil.copy(ROOT / "corpora" / "knowledge" / "lexicons.toml", folder / "knowledge")
    return folder


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def report(corpora: Path, *options: object, model: object = "tiny-llama") -> int:
    chosen = ["--model", model, "--condition", "facts", "--corpora", corpora, *options]
    return main(["ov-report", *map(str, chosen)])


def one_line(capsys) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def made(corpora, tmp_path_factory) -> Path:
    """A report on all heads."""
    path = tmp_path_factory.mktemp("reports") / "llama.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        assert report(corpora, "--top-k", 20, "--output", path) == 0
    return path


@pytest.mark.parametrize("command", ["ov-report", "ov-clusters"])
def test_help_names_every_option_and_default(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    options = {
        "ov-report": ["--model ID_OR_PATH", "--heads", "--split", "--top-k", "--corpora"],
        "ov-clusters": ["REPORT", "--limit", "--top-n"],
    }
    defaults = {"ov-report": ["discovery", "150", "corpora"], "ov-clusters": ["100", "50"]}
    for option in [*options[command], "--output FILE", "--force"]:
        assert option in said
    for default in defaults[command]:
        assert f"default: {default}" in said


def test_a_report_is_that_of_the_discovery_split(made):
    document = json.loads(made.read_text(encoding="utf-8"))
    assert document["model"] == "tiny-llama" and document["condition"] == "facts"
    assert document["split"] == "discovery" and document["n_examples"] == N_PROMPTS
    assert len(document["heads"]) == 32
    assert document["lexicons"]["hedges"]["blocked"] is None
    for row in document["heads"]:
        assert len(row["tokens"]["top"]) == len(row["static"]["tokens"]["bottom"]) == 20
    # The planted head writes the hedges it was taught.
    top = {token["token"] for token in document["heads"][0]["tokens"]["top"][:6]}
    assert " perhaps" in top and " maybe" in top


def test_heads_and_split_are_chosen_against_the_same_background(corpora, made, capsys):
    whole = {(row["layer"], row["head"]): row for row in json.loads(made.read_text())["heads"]}
    assert report(corpora, "--top-k", 20, "--heads", "1:3", "0:0", "1:3") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["heads"] == [whole[1, 3], whole[0, 0]]
    assert report(corpora, "--split", "all", "--heads", "0:0") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["split"] == "all" and document["n_examples"] == 3 * N_PROMPTS


def test_a_registered_folder_is_its_entry(corpora, made, capsys):
    folder = ROOT / "fixtures" / "organisms" / "tiny-llama"
    assert report(corpora, "--top-k", 20, model=folder) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(made.read_text())


def test_another_folder_finds_its_corpora_by_its_tokenizer(corpora, made, tmp_path, capsys):
    folder = tmp_path / "My Llama"
    shutil.copytree(ROOT / "fixtures" / "organisms" / "tiny-llama", folder)
    assert report(corpora, "--top-k", 20, model=folder) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "my-llama"
    assert document["heads"] == json.loads(made.read_text())["heads"]
    (folder / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    assert report(corpora, model=folder) == 2
    assert "architecture BertForMaskedLM is not supported. Tested are GPT2" in one_line(capsys)


def test_an_existing_file_is_not_replaced_without_force(corpora, tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_text("mine")
    assert report(corpora, "--output", path) == 2
    assert f"{path} exists; give --force to write over it" in one_line(capsys)
    assert path.read_text() == "mine"
    assert report(corpora, "--output", path, "--force", "--heads", "0:0") == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert json.loads(path.read_text(encoding="utf-8"))["model"] == "tiny-llama"
    assert [left.name for left in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--heads", "0:8"], "--heads 0:8: tiny-llama has 4 layers of 8 heads"),
        (["--top-k", "0"], "--top-k 0: give 1 or more"),
        (["--top-k", "5000"], "--top-k 5000: tiny-llama has 1404 tokens"),
        (["--seed", "-1"], "seed -1: give 0 or more"),
        (["--model", "tiny-lama"], "did you mean 'tiny-llama"),
        (["--condition", "logic"], "has no corpus 'logic'"),
        (["--registry", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--lexicons", "nowhere.toml"], "nowhere.toml: cannot be read"),
    ],
)
def test_mistakes_are_said_in_one_line(corpora, options, said, capsys):
    assert report(corpora, *options) == 2
    assert said in one_line(capsys)


@pytest.mark.parametrize("heads", ["3", "0:x", "a:b", "-1:0"])
def test_a_head_is_two_numbers(corpora, heads, capsys):
    with pytest.raises(SystemExit) as caught:
        report(corpora, f"--heads={heads}")
    assert caught.value.code == 2
    assert "is not a head; write" in capsys.readouterr().err


def test_clusters_count_over_reports(made, tmp_path, capsys):
    document = json.loads(made.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**document, "model": "another"}))
    path = tmp_path / "clusters.json"
    options = ["--limit", "5", "--top-n", "6", "--output", str(path)]
    assert main(["ov-clusters", str(made), str(other), *options]) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["n_heads"] == 64 and len(found["top"]) == len(found["bottom"]) == 5
    assert {head["model"] for head in found["top"][0]["heads"]} == {"tiny-llama", "another"}
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["ov-clusters", str(made), *options]) == 2
    assert "exists; give --force" in one_line(capsys)


def test_clusters_of_what_is_no_report_are_refused(made, tmp_path, capsys):
    path = tmp_path / "some.json"
    for text, said in (("[]", "a JSON object was expected"), ('{"a": 1}', "not an OV report")):
        path.write_text(text)
        assert main(["ov-clusters", str(path)]) == 2
        assert said in one_line(capsys)
    assert main(["ov-clusters", str(tmp_path / "nowhere.json")]) == 2
    assert "nowhere.json: cannot be read" in one_line(capsys)
    assert main(["ov-clusters", str(made), str(made), "--top-n", "5"]) == 2
    assert "is given twice" in one_line(capsys)
    assert main(["ov-clusters", str(made)]) == 2
    assert "lists of 20 tokens, fewer than top_n = 50" in one_line(capsys)


def test_the_commands_cost_nothing_until_they_are_run():
    code = (
        "import sys; from tinyablation.__main__ import parser; parser(); "
        "assert not {'torch', 'pandas', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# --- as the study's users call them --------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A cross-condition config over embedded rows, with their data files."""
    root = tmp_path_factory.mktemp("study")
    put_embedded(root)
    model = {"family": "gpt2", "name": "tiny-gpt2", "dtype": "float32"}
    return put_config(root, "h1", HEADS, conditions=CONDITIONS[:2], model=model)


def test_a_report_takes_model_and_data_from_a_config(config, capsys):
    options = ["--tag", "facts", "--heads", "0:7", "0:0", "--samples", "6", "--top-k", "10"]
    assert main(["ov-report", "--config", str(config), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["condition"]) == ("tiny-gpt2", "facts")
    assert (document["split"], document["n_examples"]) == ("train", 6)
    assert [(row["layer"], row["head"]) for row in document["heads"]] == [(0, 7), (0, 0)]
    assert all(
        {"token_id", "token", "logit"} == set(row["tokens"]["top"][0]) for row in document["heads"]
    )
    other = ["--model", "tiny-llama", *options]
    assert main(["ov-report", "--config", str(config), *other]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "tiny-llama"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "CONFIG"], "no --tag: CONFIG has conditions facts, neg"),
        (["--config", "CONFIG", "--tag", "cf"], "--tag cf: CONFIG has conditions facts, neg"),
        (["--config", "CONFIG", "--tag", "facts", "--condition", "facts"], "give one of them"),
        (["--config", "CONFIG", "--tag", "facts", "--split", "all"], "the split is that of --con"),
        (["--model", "tiny-gpt2"], "--condition is missing"),
        (["--condition", "facts"], "--model is missing"),
        (["--model", "tiny-gpt2", "--condition", "facts", "--tag", "neg"], "is of a --config"),
        (["--config", "CONFIG", "--tag", "facts", "--samples", "0"], "--samples 0: give 1 or more"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(config, capsys, options, said):
    given = [str(config) if each == "CONFIG" else each for each in options]
    assert main(["ov-report", *given]) == 2
    assert said.replace("CONFIG", str(config)) in one_line(capsys)


def as_the_study_wrote(made: Path, folder: Path, name: str, **more: object) -> Path:
    """A report without model and condition, its heads by name."""
    rows = json.loads(made.read_text())["heads"]
    fields = ("layer", "head", "vector_norm", "tokens")
    heads = {f"{r['layer']}:{r['head']}": {name: r[name] for name in fields} for r in rows}
    path = folder / name
    path.write_text(json.dumps({"heads": heads, **more}))
    return path


def test_old_reports_are_clustered_once_their_model_and_condition_are_said(made, tmp_path, capsys):
    old = as_the_study_wrote(made, tmp_path, "old.json", samples=160)
    tagged = as_the_study_wrote(made, tmp_path, "tagged.json", tag="neg", model={"name": "gpt2"})
    reports = [*map(str, (old, tagged, made))]
    options = ["--top-n", "20", "--limit", "5"]
    assert main(["ov-clusters", *reports, *options]) == 2
    assert f"{old}: does not say its model, as reports of the study; give --model" in one_line(
        capsys
    )
    named = ["--model", "gpt2-medium", "--condition", "facts"]
    assert main(["ov-clusters", *reports, *options, *named]) == 0
    owners = {
        (head["model"], head["condition"])
        for token in json.loads(capsys.readouterr().out)["top"]
        for head in token["heads"]
    }
    assert owners == {("gpt2-medium", "facts"), ("gpt2", "neg"), ("tiny-llama", "facts")}
    each = ["--model", "gpt2-medium", "gpt2", "tiny-gpt2", "--condition", "facts"]
    assert main(["ov-clusters", *reports, *options, *each]) == 2
    assert "is of model 'tiny-llama', not 'tiny-gpt2' (--model)" in one_line(capsys)
    assert main(["ov-clusters", *reports, "--model", "a", "b"]) == 2
    assert "2 names for 3 reports; give one each" in one_line(capsys)
