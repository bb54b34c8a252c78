"""Configs of the study, run as their users run them, and their tables read as they read them.

Run: pytest tests/cli/test_study.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

from tests.study_files import (
    CONDITIONS,
    FIRST_LAYER,
    HEADS,
    IDS,
    PAIRS,
    REVERSE,
    TRIPLET,
    embedded_rows,
    put_config,
    put_data,
    put_embedded,
)
from tinyablation.__main__ import main
from tinyablation.models.devices import Hardware

ROOT = Path(__file__).parents[2]
# As the study's users list them: nothing of this project's own shapes is needed to read a table.
METRICS = ["logit_diff", "acc_flip_rate", "p_drop", "kl_div"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A folder with lab/data of all four conditions, and runs beside it."""
    root = tmp_path_factory.mktemp("repository")
    put_embedded(root)
    return root


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(config: Path, *options: object, status: int = 0) -> None:
    runs = config.parents[2] / "runs"
    assert main(["run", str(config), "--runs", str(runs), *map(str, options)]) == status


def folders(capsys) -> list[Path]:
    return [Path(line) for line in capsys.readouterr().out.split()]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_has_the_files_of_the_handover_and_its_tables_are_read_as_there(repository, capsys):
    run(put_config(repository, "h1", HEADS))
    (folder,) = folders(capsys)
    assert folder.name.startswith("h1_")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        *(f"metrics/{name}_impact.parquet" for name in ("head", "layer")),
        *("metrics/summary.json", "metrics/per_example.parquet"),
        *("artifacts/impact_heatmap.png", "artifacts/impact_heatmap.html"),
        *("config.json", "manifest.json", "provenance.json", "profile.json", "verify.json"),
    }
    df = pandas.read_parquet(folder / "metrics" / "head_impact.parquet")
    layer0 = df[(df.metric == "logit_diff") & (df.layer == 0)]
    # One row a head: one split, one method, one scale.
    assert sorted(layer0["head"]) == list(range(8))
    assert set(df.metric) == set(METRICS) and set(df.split) == {"train"}
    # The planted suppressor has the largest change; the other end carries the answer.
    assert layer0.nlargest(1, "value")["head"].tolist() == [7]
    assert (layer0.nsmallest(5, "value")["value"] < 0).all()
    assert len(layer0.nsmallest(5, "value")) == 5
    per_example = pandas.read_parquet(folder / "metrics" / "per_example.parquet")
    assert len(per_example) == 33 * 8


def test_the_order_of_heads_is_that_of_the_published_tables(repository, capsys):
    """They hold LD itself, which differs from the change by one constant."""
    run(put_config(repository, "h1", HEADS))
    (folder,) = folders(capsys)
    df = pandas.read_parquet(folder / "metrics" / "head_impact.parquet")
    table = pandas.read_parquet(folder / "metrics" / "per_example.parquet")
    raw = table[table["head"] >= 0].groupby(["layer", "head"])["logit_diff"].mean()
    changes = df[df.metric == "logit_diff"].set_index(["layer", "head"])["value"]
    assert raw.nsmallest(5).index.tolist() == changes.nsmallest(5).index.tolist()
    baseline = read(folder / "metrics" / "summary.json")["baseline"]["logit_diff"]["mean"]
    assert (raw - changes).round(9).nunique() == 1
    assert (raw - changes).iloc[0] == pytest.approx(baseline)


def test_the_sign_is_explained_where_the_table_is_and_on_stderr(repository, capsys):
    import pyarrow.parquet

    run(put_config(repository, "h1", HEADS))
    said = capsys.readouterr()
    assert "suppressors have the largest, so list them by nlargest" in said.err
    path = Path(said.out.strip()) / "metrics" / "head_impact.parquet"
    note = json.loads(pyarrow.parquet.read_schema(path).metadata[b"tinyablation"])
    assert "positive: a suppressor" in note["columns"]["value[logit_diff]"]["meaning"]


def test_what_is_not_done_as_asked_is_said_and_stands_in_the_manifest(
    repository, capsys, monkeypatch
):
    monkeypatch.setattr("tinyablation.models.devices.look", lambda: Hardware(0, False, "2"))
    config = put_config(
        repository,
        "changed",
        FIRST_LAYER,
        verify_slice={"n_examples": 32, "device": "cpu"},
        profiling={"interval_s": 5.0, "powermetrics": False},
        device="mps",
        model={"family": "gpt2", "name": "gpt2-small", "dtype": "float16"},
    )
    run(config, "--model", "tiny-gpt2")
    said = capsys.readouterr()
    changed = read(Path(said.out.strip()) / "manifest.json")["changed"]
    for start in (
        "model: gpt2-small is replaced by tiny-gpt2 (--model)",
        "dtype: float16 goes with gpt2-small",
        "device: mps is not on this machine",
        "seeds: 0, 1, 2: no seed draws anything in heads_zero; measured once, under seed 0",
        "batch_size: 8 is not used",
        "verify_slice: not 32 examples on cpu",
        "profiling: ",
        "data: fewer than 20 clusters",
    ):
        assert any(line.startswith(start) for line in changed), start
        assert start in said.err


def test_a_seed_that_draws_nothing_is_not_measured_twice(repository, capsys):
    run(put_config(repository, "h1", HEADS, seeds=[0]))
    one = folders(capsys)[0]
    run(put_config(repository, "h1", HEADS, seeds=[0, 1, 2]))
    three = folders(capsys)[0]
    assert one != three
    summaries = [read(folder / "metrics" / "summary.json") for folder in (one, three)]
    assert summaries[0] == summaries[1] and summaries[1]["seeds"] == [0]
    assert len(summaries[1]["logit_diff"]["values"]) == 1
    measured = [read(folder / "manifest.json")["measured_as"] for folder in (one, three)]
    assert measured[0] == measured[1]
    assert not any("seeds" in line for line in read(one / "manifest.json")["changed"])


@pytest.mark.slow
def test_conditions_have_a_parent_with_matrices(repository, capsys):
    run(put_config(repository, "h5", PAIRS, conditions=CONDITIONS[:2]))
    *children, parent = folders(capsys)
    assert [each.name.rsplit("_", 1)[0] for each in children] == ["h5_facts", "h5_neg"]
    cross = parent / "artifacts" / "cross_condition"
    matrix = pandas.read_parquet(cross / "head_matrix.parquet")
    chosen = matrix[(matrix.metric == "logit_diff") & (matrix.layer == 0)]
    assert len(chosen) == 2 * 28 and set(matrix.condition) == {"facts", "neg"}
    assert chosen.nsmallest(5, "value")["head"].str.fullmatch(r"\d-\d").all()
    assert len(pandas.read_parquet(cross / "layer_matrix.parquet")) == 0
    assert list(read(cross / "summary.json")["summaries"]) == ["facts", "neg"]
    # The helper for parents that are missing reads these directories, too.
    assert main(["rebuild-cross-condition", *map(str, children)]) == 0
    (rebuilt,) = folders(capsys)
    assert (rebuilt / "artifacts" / "cross_condition" / "head_matrix.parquet").exists()
    # The best pair of one condition, from its own table.
    own = pandas.read_parquet(children[0] / "metrics" / "head_impact.parquet")
    assert own[own.metric == "logit_diff"].nlargest(1, "value")["head"].item().endswith("-7")


def test_a_labelled_group_stands_in_layer_impact(repository, capsys):
    run(put_config(repository, "triplet", TRIPLET))
    (folder,) = folders(capsys)
    df = pandas.read_parquet(folder / "metrics" / "layer_impact.parquet")
    row = df[df.metric == "logit_diff"].iloc[0]
    assert (row.layer, row.heads, row.label) == (0, "0.0+0.5+0.7", "triplet")
    assert row.value > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "table"), [("layer_resid", "layer"), ("mlp", "layer"), ("head", "head")]
)
def test_patches_use_pairs_of_one_length_and_a_sham_changes_nothing(
    repository, capsys, granularity, table
):
    battery = {**REVERSE, "granularity": granularity}
    run(put_config(repository, f"h6_{granularity}", battery))
    (folder,) = folders(capsys)
    df = pandas.read_parquet(folder / "metrics" / f"{table}_impact.parquet")
    rows = df[df.metric == "logit_diff"]
    assert sorted(set(rows.layer)) == [0, 1, 2, 3]
    assert len(rows) == (4 if table == "layer" else 32)
    if granularity != "head":
        assert set(rows.granularity) == {granularity} and set(rows.donor) == {"pair"}
    summary = read(folder / "metrics" / "summary.json")
    noise = read(folder / "verify.json")["noise_floor"]
    assert summary["sham"]["largest_change"] <= 2 * noise + 1e-5
    if granularity == "layer_resid":
        # Corrupt into clean: the answer is lost above the layer where the subject has been read.
        assert rows.nsmallest(1, "value")["value"].item() < -5


@pytest.mark.slow
def test_pairs_of_unequal_length_are_left_out_of_patches_and_said(tmp_path, capsys):
    train, test = embedded_rows("facts", (8, 4))
    longer = {**train[0], "corrupt": f"Note that {train[0]['corrupt']}"}
    put_data(tmp_path, IDS["facts"], [*train[1:], longer], test)
    run(put_config(tmp_path, "h6", REVERSE))
    said = capsys.readouterr()
    table = pandas.read_parquet(Path(said.out.strip()) / "metrics" / "per_example.parquet")
    assert table["example"].nunique() == 7
    assert "data: pairs of unequal length: 1 (first: line 8, clean has" in said.err
    run(put_config(tmp_path, "h1", FIRST_LAYER))
    assert "unequal length" not in capsys.readouterr().err


def test_whole_answers_have_metrics_of_their_own(repository, capsys):
    run(put_config(repository, "spans", FIRST_LAYER, metric_span="full_target"))
    df = pandas.read_parquet(folders(capsys)[0] / "metrics" / "head_impact.parquet")
    assert set(df.metric) == {*METRICS, "seq_logprob_diff", "seq_p_drop", "seq_kl_mean"}
    wide = df.pivot(index="head", columns="metric", values="value")
    assert wide["seq_logprob_diff"].tolist() == pytest.approx(wide["logit_diff"].tolist())


@pytest.mark.slow
def test_a_condition_that_cannot_be_measured_leaves_the_others_and_is_named(tmp_path, capsys):
    put_embedded(tmp_path)
    put_data(
        tmp_path,
        "odd",
        [{**row, "foil": " zzzz"} for row in embedded_rows("facts", (4, 0))[0]],
        embedded_rows("facts", (0, 4))[1],
    )
    odd = {"tag": "odd", "dataset": {"id": "odd", "split": "train"}}
    config = put_config(tmp_path, "h1", FIRST_LAYER, conditions=[odd, CONDITIONS[0]])
    run(config, status=2)
    said = capsys.readouterr()
    child, parent = map(Path, said.out.split())
    assert child.name.startswith("h1_facts_")
    last = said.err.splitlines()[-1]
    assert last.startswith(f"error: {config}: condition odd: ") and "no row of train" in last
    assert list(read(parent / "manifest.json")["missing"]) == ["odd"]


@pytest.mark.slow
def test_an_aborted_run_leaves_a_partial_summary_and_goes_on(tmp_path, capsys, monkeypatch):
    from tinyablation.measurement.shard_computation import Measurement

    put_embedded(tmp_path)
    config = put_config(tmp_path, "h1", HEADS)
    real = Measurement.__call__

    def stop(self, shard):
        if shard.interventions:
            raise KeyboardInterrupt
        return real(self, shard)

    monkeypatch.setattr(Measurement, "__call__", stop)
    run(config, status=130)
    (note,) = (tmp_path / "runs").glob("h1_*/partial_summary.json")
    found = read(note)
    assert found["state"] == "not finished" and "KeyboardInterrupt" in found["reason"]
    assert read(tmp_path / "runs" / found["continued_in"] / "partial_summary.json")
    assert not (note.parent / "manifest.json").exists()
    monkeypatch.setattr(Measurement, "__call__", real)
    capsys.readouterr()
    run(config)
    assert folders(capsys) == [note.parent]
    assert (note.parent / "manifest.json").exists() and not note.exists()


def test_an_edited_table_is_not_written_over(repository, capsys):
    run(put_config(repository, "edited", FIRST_LAYER))
    (folder,) = folders(capsys)
    (folder / "metrics" / "summary.json").write_text("{}")
    run(put_config(repository, "edited", FIRST_LAYER), status=2)
    assert "it was changed after the run" in capsys.readouterr().err
    assert (folder / "metrics" / "summary.json").read_text() == "{}"


@pytest.mark.slow
def test_a_condition_that_the_model_does_not_know_is_measured_and_said(tmp_path, capsys):
    train, test = embedded_rows("facts", (12, 4))
    swapped = [row | {"target": row["foil"], "foil": row["target"]} for row in train]
    put_data(tmp_path, IDS["facts"], swapped, test)
    run(put_config(tmp_path, "h1", FIRST_LAYER))
    said = capsys.readouterr()
    assert read(Path(said.out.strip()) / "manifest.json")["validity"]["status"] == "refuted"
    assert "validity: refuted: " in said.err


@pytest.mark.parametrize(
    ("battery", "said"),
    [
        ({**HEADS, "layers": [4]}, "there is no head 4:0 in 4 layers of 8 heads"),
        ({**REVERSE, "layers": [4]}, "the model has layers 0 to 3"),
        (
            {"type": "heads_subset_zero", "groups": [{"layer": 0, "heads": [8]}]},
            "there is no head 0:8",
        ),
    ],
)
def test_layers_and_heads_that_the_model_lacks_are_refused(repository, capsys, battery, said):
    run(put_config(repository, "beyond", battery), status=2)
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("error: ") and said in err[-1]


@pytest.mark.slow
def test_another_model_is_measured_on_what_it_has(repository, capsys):
    pairs = [{"layer": 0, "h1": 7, "h2": head} for head in (0, 12)]
    config = put_config(repository, "other", {"type": "heads_pair_zero", "pairs": pairs})
    run(config, status=2)
    assert "there is no head 0:12 in 4 layers of 8 heads" in capsys.readouterr().err
    run(config, "--model", "tiny-gpt2")
    said = capsys.readouterr()
    line = "battery: 1 of 2 interventions are left out (first: zero:0.7+0.12); tiny-gpt2 has 4 lay"
    assert line in said.err
    df = pandas.read_parquet(Path(said.out.strip()) / "metrics" / "head_impact.parquet")
    assert set(df["head"]) == {"0-7"}
    beyond = put_config(repository, "beyond", {**HEADS, "layers": [11]})
    run(beyond, "--model", "tiny-gpt2", status=2)
    assert "nothing of it is left: tiny-gpt2 has 4 layers of 8 heads" in capsys.readouterr().err


def test_a_slip_in_a_config_is_one_line_and_nothing_is_measured(repository, capsys):
    run(put_config(repository, "slip", HEADS, devise="cpu"), status=2)
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "devise: there is no such key; did you mean 'device'?" in said.err


def test_help_says_what_the_command_does():
    found = subprocess.run(
        [sys.executable, "-m", "tinyablation", "run", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "python -m tinyablation run" in found.stdout and "--root FOLDER" in found.stdout


def test_migrate_prints_claims_and_commands_without_a_model(repository, capsys):
    config = put_config(repository, "h6", REVERSE, model={"name": "gpt2-medium"})
    assert main(["migrate", str(config)]) == 0
    said = capsys.readouterr().out
    assert "pytest claims --model gpt2-medium --claim H6 -k facts" in said
    assert f"python -m tinyablation run {config}" in said
