"""Evidence: what is taken down of a session, what is refused, and how cells were judged.

Run: pytest tests/evidence/test_rederivation.py
"""

import json
from pathlib import Path

import pytest

from tests.fake_sessions import fake_session, one_record
from tests.synthetic_runs import make_config, obtain
from tinyablation.errors import RunError, WeightsMissing
from tinyablation.evidence.archive import BundleError
from tinyablation.evidence.bundle import _test, choose
from tinyablation.evidence.rederivation import (
    Conduct,
    Described,
    EvidenceError,
    GatheringStore,
    KeptLibrary,
    Models,
    Nobody,
    Notes,
    conduct_of,
    kept_facts,
    named_models,
    read_models,
)
from tinyablation.files.manifests import MANIFEST, check_manifest
from tinyablation.models.registry import Checkpoint, load_registry
from tinyablation.records.records import RecordFile
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")


# --- what a session reads ------------------------------------------------------------------------


def test_what_is_missing_is_refused_by_its_address():
    nobody, config = Nobody(), make_config()
    assert not nobody.is_under_way(config)
    with pytest.raises(EvidenceError, match=f"{config.name}: there is no complete measurement"):
        nobody.begin(None, "run", config)


def test_a_run_that_is_asked_for_is_copied(tmp_path):
    run = obtain(tmp_path / "from")
    store = GatheringStore(tmp_path / "to", source=tmp_path / "from")
    assert not (tmp_path / "to").exists()
    assert store.status(run.config) == "complete"
    check_manifest(tmp_path / "to" / run.name)
    assert not list((tmp_path / "to").rglob(".*"))
    assert RunStore(tmp_path / "to").open(run.name).table().equals(run.table())


def test_a_run_that_is_not_whole_is_not_copied(tmp_path):
    run = obtain(tmp_path / "from")
    (run.path / MANIFEST).unlink()
    store = GatheringStore(tmp_path / "to", source=tmp_path / "from")
    assert store.status(run.config) == "absent"
    assert not (tmp_path / "to").exists()


def test_no_file_of_a_run_leads_out_of_it(tmp_path):
    run = obtain(tmp_path / "from")
    outside = tmp_path / "from" / "secret.json"
    outside.write_text("{}")
    manifest = json.loads((run.path / MANIFEST).read_text("utf-8"))
    manifest["files"]["../secret.json"] = {"size": 2, "sha256": sha256_of("{}")}
    (run.path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(RunError, match=r"'\.\./secret\.json' is not a path inside the folder"):
        GatheringStore(tmp_path / "to" / "runs", source=tmp_path / "from").status(run.config)
    assert not (tmp_path / "to" / "runs" / "secret.json").exists()


def sha256_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_models_are_described_without_places(tmp_path):
    notes = Notes()
    entry = REGISTRY["tiny-gpt2"]
    facts = notes.describe(entry)
    models = notes.models(lambda name: "listed")
    (tmp_path / "models.json").write_text(models.model_dump_json(), encoding="utf-8")
    kept = read_models(tmp_path / "models.json")
    assert str(ROOT) not in (tmp_path / "models.json").read_text("utf-8")
    assert kept_facts(kept, entry) == facts  # but for the folder, which is no fact of the model
    assert kept_facts(kept, entry).folder == Path("models", "tiny-gpt2")
    own = kept.models["tiny-gpt2"].entry
    assert own.source == Path("models", "tiny-gpt2")
    assert len(own.checkpoints) == len(entry.checkpoints) > 1
    assert own.checkpoints[0].source == Path(
        "models", f"tiny-gpt2-step{own.checkpoints[0].step:04d}"
    )
    assert own.at(own.checkpoints[0]).id == entry.at(entry.checkpoints[0]).id
    with pytest.raises(EvidenceError, match="does not describe the model tiny-llama"):
        kept_facts(kept, REGISTRY["tiny-llama"])


def test_checkpoints_of_the_hub_keep_their_revisions():
    entry = REGISTRY["pythia-160m"]
    assert all(isinstance(each, Checkpoint) and each.revision for each in entry.checkpoints)
    kept = Described(entry=entry, standing="listed", missing="none here")
    notes = Notes({entry.id: (entry, None, "none here")})
    assert notes.models(lambda name: "listed").models[entry.id] == kept


def test_a_model_that_could_not_be_had_cannot_be_had_from_its_evidence(tmp_path):
    entry = REGISTRY["tiny-gpt2"].model_copy(update={"source": tmp_path / "nowhere"})
    notes = Notes()
    with pytest.raises(WeightsMissing, match="nowhere"):
        notes.describe(entry)
    with pytest.raises(WeightsMissing, match="nowhere"):
        kept_facts(notes.models(lambda name: "listed"), entry)


def test_corpora_are_found_by_the_model(tmp_path):
    entry = REGISTRY["tiny-gpt2"]
    models = Models(models={entry.id: Described(entry=entry, standing="listed", shelf="tiny")})
    library = KeptLibrary(ROOT / "corpora", models)
    corpus, split = library.corpus(tmp_path / "nowhere", "facts", entry.id)
    assert corpus.tokenizer == "tiny" and split.data_hash == corpus.content_hash
    with pytest.raises(Exception, match="the evidence holds no corpora for tiny-llama"):
        library.corpus(tmp_path / "nowhere", "facts", "tiny-llama")


@pytest.mark.parametrize("shelf", ["..", "a/b", "/etc", "a\\b"])
def test_no_folder_of_corpora_leads_elsewhere(tmp_path, shelf):
    entry = REGISTRY["tiny-gpt2"].model_dump(mode="json")
    document = {"models": {"tiny-gpt2": {"entry": entry, "standing": "listed", "shelf": shelf}}}
    (tmp_path / "models.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(EvidenceError, match=r"models\.json: field models\.tiny-gpt2\.shelf"):
        read_models(tmp_path / "models.json")


# --- how cells were judged -----------------------------------------------------------------------


def session(command: str, **changes: object) -> RecordFile:
    file = fake_session()
    return file.model_copy(
        update={"session": file.session.model_copy(update={"command": command, **changes})}
    )


def test_conduct_is_that_of_the_command(tmp_path):
    file = session(
        "pytest claims -n 2 --seed 3 --screen=64:5% --dtype bfloat16 --model a/b --revision main "
        "--per-relation 4",
        device="cuda (bfloat16)",
    )
    found = conduct_of(file, [one_record(runs=[])], tmp_path)
    assert found == Conduct(seed=3, screen="64:5%", dtype="bfloat16", device="cuda", per_relation=4)
    assert found.options() == [
        "--device=cpu",
        "--seed=3",
        "--dtype=bfloat16",
        "--protocol=corrected",
        "--per-relation=4",
        "--screen=64:5%",
    ]
    assert named_models(file.session.command) == ["--model", "a/b", "--revision", "main"]


@pytest.mark.parametrize(
    "options", ["'unclosed", "--seed=x", "--seed", "--model", "--seed -3", "--dtype int9"]
)
def test_a_command_that_cannot_be_read_is_refused_in_a_line(options, tmp_path):
    with pytest.raises(EvidenceError, match="session's command cannot be read") as caught:
        conduct_of(session(f"pytest claims {options}"), [one_record(runs=[])], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 200_000, f"claims/test_a.py::test_{'a' * 200_000}"])
def test_a_test_id_of_200_kb_is_refused_in_a_line(name):
    with pytest.raises(BundleError, match=r"'\.\.\. is not the node id of a claim") as caught:
        _test(name)
    assert len(str(caught.value)) < 200


def test_heads_named_by_hand_are_not_bundled(tmp_path):
    with pytest.raises(EvidenceError, match="judged with --heads L0H3, .* declare these heads in"):
        conduct_of(session("pytest claims --heads L0H3"), [one_record(runs=[])], tmp_path)


def test_runs_say_more_than_the_command(tmp_path):
    """A session whose command is not known in full, such as one that was merged."""
    run = obtain(tmp_path, make_config(seed=7, device="cuda:1"))
    found = conduct_of(session("pytest"), [one_record(runs=[run.name])], tmp_path)
    assert (found.seed, found.device, found.screen) == (7, "cuda", None)
    other = obtain(tmp_path, make_config(seed=7, device="cpu"))
    with pytest.raises(EvidenceError, match="measured on cpu and cuda; bundle them separately"):
        conduct_of(session("pytest"), [one_record(runs=[run.name, other.name])], tmp_path)


def test_cells_are_chosen_by_all_that_is_asked():
    file = fake_session()
    models = ["tiny-gpt2"]
    found = choose(file, claims=["H1"], models=models, conditions=["facts", "logic"])
    assert {record.model for record in found} == {"tiny-gpt2"}
    assert {record.condition for record in found} == {"facts", "logic"}
    assert {record.claim for record in found} == {"H1.1", "H1.2", "H1.8", "H1.9", "H1.10"}
    assert {record.claim for record in choose(file, claims=["H1.1"])} == {"H1.1"}
    own = found[0].test
    assert [record.test for record in choose(file, tests=[own])] == [own]
    with pytest.raises(EvidenceError, match="H7: no such test case is recorded; there are: V.1"):
        choose(file, claims=["H1", "H7"])
