"""Bundles, end to end: the verdict comes out of the tables, without weights, torch or tokenizers.

One session measures five cells of a sweep, of sets of heads, of the unhooked model and of a
reading; the verdicts are derived in a copy of the project that has neither models nor corpora.

Run: pytest tests/evidence/test_bundle.py
"""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.evidence.forging import forged, other_weights
from tests.evidence.test_archive import rewritten
from tests.evidence.test_crate import check
from tests.loopback_hub import LoopbackHub
from tinyablation.evidence.crate import CRATE
from tinyablation.files.manifests import MANIFEST

pytestmark = pytest.mark.slow  # sessions, servers or processes of their own: make slow

ROOT = Path(__file__).parents[2]
CELL = "tiny-gpt2-facts"
TESTS = {
    "H1.1": "claims/suppressors/test_h1_suppressors.py::test_top_suppressor_is_in_layer_zero",
    "H5.4": "claims/suppressors/test_h5_coalitions.py::test_leader_alone_recovers_most",
    "V.3": "claims/suppressors/test_validity.py::test_swapped_labels_flip_the_logit_difference",
    "OV.1": "claims/suppressors/test_ov.py::test_named_head_writes_hedges",
}
ABSENT = ("torch", "transformers", "transformer_lens")
SETTINGS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(
    folder: Path, *command: str, path: tuple[Path, ...] = (), **environment: str
) -> subprocess.CompletedProcess:
    settings = os.environ | SETTINGS | environment
    settings = {name: value for name, value in settings.items() if not name.startswith("PYTEST_")}
    settings["PYTHONPATH"] = os.pathsep.join(map(str, (*path, folder)))
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=settings,
        capture_output=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Path:
    """A folder of reports with the records and the runs of five cells."""
    folder = tmp_path_factory.mktemp("reports")
    tests = [f"{test}[{CELL}]" for test in TESTS.values()]
    done = run(ROOT, "pytest", "-q", "-p", "no:cacheprovider", f"--reports={folder}", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def bundle(reports, tmp_path_factory) -> Callable[..., Path]:
    """Make the bundle of some claims, once; a copy of it, which a test may change."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*claims: str) -> Path:
        if claims not in made:
            path = tmp_path_factory.mktemp("made") / "evidence.zip"
            done = bundled(reports, path, "--claim", *claims)
            assert done.returncode == 0, done.stderr
            made[claims] = path
        copy = tmp_path_factory.mktemp("bundle") / "evidence.zip"
        shutil.copyfile(made[claims], copy)
        return copy

    return make


def bundled(
    reports: Path, path: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess:
    command = ["tinyablation", "bundle", f"--reports={reports}", f"--output={path}"]
    return run(ROOT, *command, *options, **environment)


@pytest.fixture(scope="module")
def third_party(tmp_path_factory) -> Path:
    """A checkout without models, corpora and snapshots."""
    folder = tmp_path_factory.mktemp("third-party") / "project"
    folder.mkdir()
    for name in ("pytest.ini", "conftest.py", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    left_out = shutil.ignore_patterns("__pycache__", "__snapshots__", "tiny-*", "calibration")
    for name in ("claims", "fixtures", "tinyablation"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    assert not list(folder.rglob("*.safetensors")) + list(folder.rglob("tokenizer*.json"))
    return folder


@pytest.fixture(scope="module")
def verdict(third_party, tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """`verdict`, where importing what is needed to measure fails."""
    absent = tmp_path_factory.mktemp("absent")
    for name in ABSENT:
        (absent / f"{name}.py").write_text(f"raise ImportError('{name} is not here')\n")

    def call(path: Path, *options: str, project: Path = third_party) -> subprocess.CompletedProcess:
        return run(project, "tinyablation", "verdict", str(path), *options, path=(absent,))

    return call


def entry(path: Path, end: str) -> str:
    with zipfile.ZipFile(path) as archive:
        (found,) = [name for name in archive.namelist() if name.endswith(end)]
    return found


def replacing(name: str, change: Callable[[bytes], bytes], *, consistently: bool):
    """Change a file of an archive; consistently: and what the archive's manifest says of it."""
    import hashlib

    def edit(entries) -> None:
        contents = {info.filename: data for info, data in entries}
        contents[name] = change(contents[name])
        if consistently:
            manifest = json.loads(contents[MANIFEST])
            data = contents[name]
            named = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            manifest["files"][name] = named
            contents[MANIFEST] = json.dumps(manifest).encode()
        entries[:] = [(info, contents[info.filename]) for info, _ in entries]

    return edit


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", TESTS)
def test_the_verdict_comes_out_of_the_tables(bundle, verdict, claim):
    done = verdict(bundle(claim))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTS[claim]}[{CELL}]" in done.stdout
    assert "1 of 1 test case(s) agree with the record" in done.stdout
    assert "differs" not in done.stdout
    recorded, derived = done.stdout.splitlines()[1:3]
    assert recorded.split()[1:] == derived.split()[1:]


@pytest.mark.parametrize(
    "protocol", ["corrected", pytest.param("published", marks=pytest.mark.nightly)]
)
def test_a_model_of_the_hub_by_either_protocol(verdict, tmp_path, protocol):
    """Whoever gets the bundle has neither the hub nor the weights."""
    reports, path = tmp_path / "reports", tmp_path / "evidence.zip"
    with LoopbackHub() as hub:
        commit = hub.add("mistralai/Mistral-7B-v0.1", ROOT / "fixtures/organisms/tiny-mistral")
        measured = run(
            *(ROOT, "pytest", "claims", "-q", "-p", "no:cacheprovider", f"--reports={reports}"),
            *("-k", "mistral-7b and facts and layer_zero", "--claim", "H1.1", "--dtype", "float32"),
            *("--protocol", protocol),
            **hub.environment(tmp_path / "hf", offline=False),
        )
        assert measured.returncode == 0, measured.stdout + measured.stderr
    reports /= "published" if protocol == "published" else ""
    done = bundled(reports, path, "--model", "mistral-7b")
    assert done.returncode == 2 and "mistral-7b is not on this machine" in done.stderr
    assert not path.exists()
    done = bundled(reports, path, "--model", "mistral-7b", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    done = verdict(path)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = json.loads((reports / "records.json").read_text("utf-8"))["records"]
    assert (record["model"], record["condition"]) == ("mistral-7b", "facts")
    assert "1 of 1 test case(s) agree with the record" in done.stdout
    assert record["verdict"] in done.stdout.splitlines()[2]
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.endswith((".safetensors", "tokenizer.json"))]
        assert commit.encode() in b"".join(archive.read(name) for name in names)


def test_several_cells_as_json(bundle, verdict, reports):
    done = verdict(bundle("H1", "V"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    records = json.loads((reports / "records.json").read_text("utf-8"))["records"]
    own = {record["test"]: record for record in records if record["claim"] in ("H1.1", "V.3")}
    assert found["same"] and found["notes"] == []
    assert {cell["test"] for cell in found["cells"]} == set(own)
    for cell in found["cells"]:
        assert cell["recorded"] == cell["derived"]
        assert cell["derived"]["effect"] == own[cell["test"]]["effect"]
        assert cell["derived"]["verdict"] == "supported"


def test_a_bundle_holds_evidence_and_no_weights(bundle):
    with zipfile.ZipFile(bundle("H1.1")) as archive:
        names = archive.namelist()
        models = json.loads(archive.read("models.json"))["models"]
        manifest = json.loads(archive.read(MANIFEST))
        lines = archive.read("corpora/tiny/facts.jsonl")
        text = archive.read("README.txt").decode()
        source = archive.read("sources/claims/suppressors/test_h1_suppressors.py")
    assert set(manifest["files"]) == set(names) - {MANIFEST}
    assert not [name for name in names if name.endswith((".safetensors", ".bin", ".pkl"))]
    assert {"records.json", "claims.html", "corpora/tiny/facts.split.json"} <= set(names)
    assert "corpora/tiny/logic.jsonl" not in names  # not asked for
    for battery in ("zero", "methods", "corrupt"):  # the last is what validity needs
        for file in ("config.json", "metrics/per_example.parquet", "verify.json", MANIFEST):
            assert [
                name
                for name in names
                if name.startswith(f"runs/tiny-gpt2-{battery}-facts_") and name.endswith(file)
            ]
    assert lines == (ROOT / "corpora" / "tiny" / "facts.jsonl").read_bytes()
    assert source == (ROOT / "claims" / "suppressors" / "test_h1_suppressors.py").read_bytes()
    assert len(models["tiny-gpt2"]["facts"]["weight_hash"]) == 64
    assert str(ROOT) not in json.dumps(models)
    assert "python -m tinyablation verdict" in text and "H1.1 tiny-gpt2 facts: supported" in text


def test_who_made_it_and_its_licence_are_its_authors_word(reports, tmp_path, verdict):
    path = tmp_path / "evidence.zip"
    said = ["--creator", "Doe, Jane", "A Lab", "--license", "CC-BY-4.0"]
    done = bundled(reports, path, "--claim", "V.3", *said)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(path) as archive:
        crate = json.loads(archive.read(CRATE))
        names = set(archive.namelist()) - {CRATE}
    entities = check(crate, names)
    assert [entities[each["@id"]]["name"] for each in entities["#session"]["agent"]] == [
        *("Doe, Jane", "A Lab"),
    ]
    done = verdict(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not verified: who made it (Doe, Jane; A Lab)\n" in done.stdout
    assert "not verified: its licence (CC-BY-4.0)\n" in done.stdout

    def other(entries) -> None:  # the manifest's author is held to the crate's
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == MANIFEST)
        manifest = json.loads(entries[at][1]) | {"creators": ["Roe, Richard"]}
        entries[at] = (entries[at][0], json.dumps(manifest).encode())

    done = verdict(rewritten(path, other))
    assert done.returncode == 1 and f"differs: {CRATE}: is not what" in done.stdout
    done = bundled(reports, tmp_path / "none.zip", "--claim", "V.3", "--creator", " ")
    assert done.returncode == 2 and "--creator '': give 1 to 200 characters" in done.stderr


def test_the_same_evidence_gives_the_same_bytes(bundle, reports, tmp_path):
    done = bundled(reports, tmp_path / "again.zip", "--claim", "H5.4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.zip").read_bytes() == bundle("H5.4").read_bytes()


# --- what was tampered with ----------------------------------------------------------------------


def table_in(path: Path, battery: str) -> str:
    """The name of a table of a run of that battery."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return next(name for name in names if battery in name and name.endswith("example.parquet"))


def test_a_table_that_was_changed_is_named(bundle, verdict):
    path = bundle("V.3")
    name = table_in(path, "baseline")
    rewritten(path, replacing(name, lambda data: data[:-1] + b"x", consistently=False))
    done = verdict(path)
    assert done.returncode == 2 and done.stdout == ""
    assert f"{name}: expected sha256 " in done.stderr and ", found " in done.stderr


def test_a_table_is_held_to_its_own_runs_manifest_too(bundle, verdict):
    path = bundle("V.3")
    name = table_in(path, "baseline")
    rewritten(path, replacing(name, lambda data: data[:-1] + b"x", consistently=True))
    done = verdict(path)
    assert done.returncode == 2 and "its sha256 is not the one in manifest.json" in done.stderr


def test_other_figures_under_consistent_hashes_are_another_verdict(bundle, verdict):
    """Whoever changes a table and every hash of it has still the recorded figures against them."""
    import hashlib

    path = bundle("V.3")
    name = table_in(path, "corrupt")
    table = changed_table(path, name)
    run_manifest = name.replace("metrics/per_example.parquet", MANIFEST)

    def label(data: bytes) -> bytes:
        manifest = json.loads(data)
        named = {"size": len(table), "sha256": hashlib.sha256(table).hexdigest()}
        manifest["files"]["metrics/per_example.parquet"] = named
        return json.dumps(manifest).encode()

    rewritten(path, replacing(name, lambda _: table, consistently=True))
    rewritten(path, replacing(run_manifest, label, consistently=True))
    done = verdict(path)
    assert done.returncode == 1, done.stderr
    assert "0 of 1 test case(s) agree with the record" in done.stdout
    assert "differs   high: was 4.8" in done.stdout  # of the group of labels that decides


def changed_table(path: Path, name: str) -> bytes:
    """The table with every logit difference a tenth larger, columns and types as they are."""
    import pyarrow
    import pyarrow.parquet

    with zipfile.ZipFile(path) as archive:
        table = pyarrow.parquet.read_table(io.BytesIO(archive.read(name)))
    at = table.column_names.index("logit_diff")
    larger = pd.Series(table["logit_diff"].to_numpy() * 1.1)
    column = pyarrow.array(larger, type=table.field(at).type)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table.set_column(at, table.field(at), column), sink)
    return sink.getvalue()


def record_with(**changes: object) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        file = json.loads(data)
        file["records"][0] |= changes
        return json.dumps(file).encode()

    return change


def test_a_record_that_was_changed_is_found(bundle, verdict):
    changes = record_with(verdict="refuted", effect=-1.5, unit="\x1b[2Jlogits")
    path = rewritten(bundle("H5.4"), replacing("records.json", changes, consistently=False))
    done = verdict(path)
    assert done.returncode == 2 and "records.json: expected" in done.stderr
    path = rewritten(bundle("H5.4"), replacing("records.json", changes, consistently=True))
    done = verdict(path)
    assert done.returncode == 1
    assert 'differs   verdict: was "refuted", now "supported"' in done.stdout
    assert "differs   effect: was -1.5, now 1.0" in done.stdout
    assert "\x1b" not in done.stdout and "U+001B[2Jlogits" in done.stdout


@pytest.mark.parametrize(
    "test",
    ["--rootdir=/tmp", "../evil.py::test_a", "claims/../evil.py::test_a", "claims/test_a.py"],
)
def test_nothing_but_claims_is_run(bundle, verdict, test):
    def both(entries) -> None:
        replacing("records.json", record_with(test=test), consistently=True)(entries)
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == MANIFEST)
        manifest = json.loads(entries[at][1]) | {"tests": [test]}
        entries[at] = (entries[at][0], json.dumps(manifest).encode())

    done = verdict(rewritten(bundle("H5.4"), both))
    assert done.returncode == 2 and "is not the node id of a claim" in done.stderr


def test_options_of_a_bundle_are_no_others(bundle, verdict):
    def edit(entries) -> None:
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == MANIFEST)
        manifest = json.loads(entries[at][1])
        manifest["conduct"]["screen"] = "1:1 -p evil"
        entries[at] = (entries[at][0], json.dumps(manifest).encode())

    done = verdict(rewritten(bundle("H5.4"), edit))
    assert done.returncode == 2 and "field conduct.screen" in done.stderr


def test_evidence_that_lacks_a_run_is_said_so(bundle, verdict):
    """Not blocked, and nothing is measured in its place."""

    def edit(entries) -> None:
        gone = [info.filename for info, _ in entries if "-corrupt-facts_" in info.filename]
        assert gone
        at = next(at for at, (info, _) in enumerate(entries) if info.filename == MANIFEST)
        manifest = json.loads(entries[at][1])
        for name in gone:
            del manifest["files"][name]
        entries[at] = (entries[at][0], json.dumps(manifest).encode())
        entries[:] = [pair for pair in entries if pair[0].filename not in gone]

    done = verdict(rewritten(bundle("H5.4"), edit))
    assert done.returncode == 2
    assert "cannot be judged by it" in done.stderr
    assert "there is no complete measurement at this address" in done.stderr


def test_another_version_of_the_claim_is_named(bundle, verdict, third_party, tmp_path):
    """The installed function judges, and whoever reads the verdict is told that it is another."""
    project = tmp_path / "project"
    shutil.copytree(third_party, project)
    module = project / "claims" / "suppressors" / "test_h5_coalitions.py"
    text = module.read_text("utf-8")
    module.write_text(text + "\n# another version\n", encoding="utf-8")
    done = verdict(bundle("H5.4"), project=project)
    assert done.returncode == 0, done.stderr
    assert "note: claims/suppressors/test_h5_coalitions.py differs: installed is " in done.stdout
    assert "instruments" not in done.stdout

    (project / "claims" / "suppressors" / "subjects.toml").unlink()
    shutil.copyfile(
        third_party / "claims" / "suppressors" / "subjects.toml",
        project / "claims" / "suppressors" / "subjects.toml",
    )
    with (project / "tinyablation" / "verdicts" / "verdicts.py").open("a") as stream:
        stream.write("# another version\n")
    done = verdict(bundle("H5.4"), project=project)
    assert done.returncode == 0 and "note: instruments differ: " in done.stdout


def test_code_in_a_bundle_is_never_run(bundle, verdict, tmp_path):
    proof = tmp_path / "ran"
    code = f"open({str(proof)!r}, 'w').close()\n".encode()
    path = bundle("H5.4")
    name = "sources/claims/suppressors/test_h5_coalitions.py"
    rewritten(path, replacing(name, lambda _: code, consistently=True))
    done = verdict(path)
    assert done.returncode == 0, done.stderr
    assert f"note: {name.removeprefix('sources/')} differs" in done.stdout
    assert not proof.exists()


# --- weights -------------------------------------------------------------------------------------


def test_other_weights_under_consistent_hashes(bundle, verdict, tmp_path):
    """A checkout with the model finds them out; one without says that it cannot know them."""
    path = forged(bundle("H5.4"), tmp_path / "forged.zip", other_weights("f" * 64))
    done = verdict(path, project=ROOT)
    assert done.returncode == 1, done.stdout + done.stderr
    line = f"differs: models.json: tiny-gpt2: weight_hash {'f' * 64}, on this machine dac9e031"
    assert line in done.stdout
    done = verdict(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not verified: that the weights of tiny-gpt2 are ffffffffffff: the model is not on" in (
        done.stdout
    )


def test_a_whole_checkout_verifies_all_that_it_can(bundle, verdict):
    done = verdict(bundle("H1", "V"), project=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = [line for line in done.stdout.splitlines() if line.startswith("not verified: ")]
    assert "differs" not in done.stdout and not any("weights" in line for line in unknown)
    assert len(unknown) <= 4, unknown  # the measurement, its time, the commit, the ledger


# --- what is not bundled -------------------------------------------------------------------------


def test_a_record_that_the_store_does_not_give_is_not_bundled(reports, tmp_path):
    own = tmp_path / "reports"
    shutil.copytree(reports, own)
    data = json.loads((own / "records.json").read_text("utf-8"))
    for record in data["records"]:
        record["effect"] = 17.0
    (own / "records.json").write_text(json.dumps(data), encoding="utf-8")
    done = bundled(own, tmp_path / "evidence.zip", "--claim", "H5.4")
    assert done.returncode == 2 and "effect: was 17.0, now 1.0" in done.stderr
    assert not (tmp_path / "evidence.zip").exists()


def test_nothing_is_measured_for_a_bundle(reports, tmp_path):
    own = tmp_path / "reports"
    shutil.copytree(reports, own)
    (gone,) = (own / "runs").glob("tiny-gpt2-corrupt-facts_*")
    shutil.rmtree(gone)
    done = bundled(own, tmp_path / "evidence.zip", "--claim", "H5.4")
    assert done.returncode == 2 and gone.name in done.stderr
    assert not gone.exists() and not (tmp_path / "evidence.zip").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say which test cases"),
        (["--claim", "H9.9"], "--claim H9.9: no such test case is recorded; there are: V.3, H1.1"),
        (["--claim", "V.3", "--model", "tiny-gpt3"], "--model tiny-gpt3: no such test case"),
        (["--claim", "V.3", "--condition", "logic"], "--condition logic: no such test case"),
        (["--claim", "V.3", "--project", "claims"], "it is not a checkout of the project"),
    ],
)
def test_what_is_asked_for_must_be_there(reports, tmp_path, options, said):
    done = bundled(reports, tmp_path / "evidence.zip", *options)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "evidence.zip").exists()


def test_nothing_is_written_over(reports, tmp_path):
    path = tmp_path / "evidence.zip"
    path.write_text("mine")
    done = bundled(reports, path, "--claim", "V.3")
    assert done.returncode == 2 and "--force" in done.stderr
    assert path.read_text() == "mine"
