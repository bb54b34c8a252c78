"""The bench: from a model folder and a corpus to runs, measured once.

Run: pytest tests/measurement/test_bench.py
"""

import json
import shutil
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.benches import bench_of
from tests.small_corpora import crossed, label, put_corpora, put_crossed
from tinyablation.analysis.findings import Findings
from tinyablation.corpora.examples import SPLITS, CorpusError, load_corpus, load_split, write_corpus
from tinyablation.files.hashes import file_sha256
from tinyablation.files.manifests import Damaged
from tinyablation.interventions.batteries import EVERYTHING, ONE_EACH, ONE_WORDING, battery
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.head_readings import Lengths
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.models.tokenizer_state import load_tokenizer, state_of
from tinyablation.runs.derived import environment_fingerprint
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """A few clusters of the embedded tokenizer's facts, both splits."""
    return put_corpora(tmp_path_factory.mktemp("corpora"))


bench = partial(bench_of, "tiny-mistral")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, corpora):
    store = tmp_path_factory.mktemp("store")
    made = bench(store, corpora)
    return made, Findings(made).sweep("facts"), store


def test_a_sweep_covers_every_head(measured):
    made, sweep, _ = measured
    assert len(sweep.heads) == made.facts.n_layers * made.facts.n_heads
    assert np.isfinite(sweep.deltas("discovery")).all()


def test_methods_cover_layer_zero_in_four_ways_on_some_examples(measured):
    made, sweep, _ = measured
    methods = Findings(made).methods("facts")
    assert methods.heads == sweep.layer(0)
    assert set(methods.methods((0, 1))) == {"zero", "zero_folded", "mean", "resample"}
    # One example of each of the 8 clusters, where the sweep has two.
    assert len(methods.baseline()) == len(set(methods.baseline()["cluster_id"])) == 8


def test_a_sweep_has_one_wording_of_each_item_and_subsets_have_all(measured):
    made, sweep, _ = measured
    heads = sweep.layer(0)[:2]
    every = Findings(made).subsets("facts", heads).baseline()
    assert len(every) == 16 and len(sweep.baseline()) == 16  # of one half, and of both
    items = Counter(zip(sweep.baseline()["fact_id"], sweep.baseline()["split"], strict=True))
    assert set(items.values()) == {1}
    assert set(Counter(every["fact_id"]).values()) == {2}
    for split in SPLITS:
        assert Counter(sweep.baseline(split)["template_id"]) == dict.fromkeys(WORDINGS, 4)
    for name in (None, *SPLITS):
        rows = made.rows("facts", replace(ONE_WORDING, split=name))
        assert set(rows.values()) <= {*SPLITS} and len(rows) == (16 if name is None else 8)


WORDINGS = ("note.simply", "short.known")


def test_the_wordings_are_part_of_the_address(measured):
    made, _, _ = measured
    names = {made.config("facts", "zero", sample).name for sample in (EVERYTHING, ONE_WORDING)}
    assert len(names) == 2 and made.config("facts", "zero", EVERYTHING).wordings is None


@pytest.mark.parametrize("condition", ["facts", "binding"])
def test_a_corpus_without_several_wordings_of_each_item_is_swept_whole(condition, tmp_path):
    """facts in families, each in every wording of its own; binding, each in one."""
    if condition == "facts":
        root = put_crossed(tmp_path, crossed())
    else:
        root = put_corpora(tmp_path, conditions=("binding",))
    made = bench(tmp_path / "store", root)
    samples = [replace(sample, among="all") for sample in (EVERYTHING, ONE_WORDING)]
    assert made.rows(condition, samples[0]) == made.rows(condition, samples[1])
    assert made.config(condition, "zero", samples[0]) == made.config(condition, "zero", samples[1])


def test_a_complete_run_is_read_without_the_model(measured, corpora):
    _, sweep, store = measured
    again = bench(store, corpora)
    assert Findings(again).sweep("facts").table.equals(sweep.table)
    assert "model" not in again.__dict__
    assert "engine" not in again.__dict__


def test_the_noise_floor_is_measured_and_small(measured):
    """fp32 sums in another order: some 1e-6 of a logit, and not nothing."""
    _, sweep, _ = measured
    assert 0 < sweep.noise_floor < 1e-4


def test_unhooked_tables_are_of_the_same_examples(measured):
    made, _, _ = measured
    tables = made.gate.unhooked("facts")
    corpus, _ = made.corpus("facts")
    assert list(tables.corrupt["clean"]) == [example.corrupt for example in corpus.examples]
    assert list(tables.null["clean"]) == [example.null for example in corpus.examples]
    assert list(tables.clean["fact_id"]) == list(tables.corrupt["fact_id"])


@pytest.mark.slow
def test_the_seed_draws_the_donors(measured, corpora):
    """P11: another seed is another run, and moves resample ablation only."""
    _, _, store = measured
    single = battery("single-heads")
    first, second = (
        Findings(bench(store, corpora, seed=n)).effects("facts", single) for n in (0, 1)
    )
    assert first.runs != second.runs
    for method, same in (("zero", True), ("mean", True), ("resample", False)):
        label = AblateHeads(((0, 1),), method).label
        values = [each.change(label, "discovery") for each in (first, second)]
        assert np.array_equal(*values) is same


def test_the_seed_draws_the_examples(measured, corpora):
    """P11: a share of the clusters, or some examples of each, are other ones for another seed."""
    _, _, store = measured
    drawn = [bench(store, corpora, seed=n, share=0.5).rows("facts") for n in range(3)]
    assert all(len(rows) == 16 for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) > 1
    some = [bench(store, corpora, seed=n).rows("facts", ONE_EACH) for n in range(3)]
    assert all(len(rows) == 8 for rows in some)
    assert len({tuple(rows) for rows in some}) > 1


def test_the_corpus_is_part_of_the_address(measured, corpora, tmp_path):
    _, sweep, store = measured
    shutil.copytree(corpora, tmp_path / "corpora")
    path = tmp_path / "corpora" / "tiny" / "facts.jsonl"
    corpus = load_corpus(path)
    turned = type(corpus).of("facts", "tiny", corpus.examples[::-1])
    halves = {"discovery": tuple(range(16, 32)), "confirmation": tuple(range(16))}
    split = load_split(path.with_suffix(".split.json"), corpus)
    write_corpus(path.parent, turned, type(split)(0, turned.content_hash, halves))
    label(tmp_path / "corpora")
    assert Findings(bench(store, tmp_path / "corpora")).sweep("facts").runs != sweep.runs


def test_a_corpus_without_null_prompts_has_no_null_table(corpora, tmp_path, measured):
    """The handover's rows have none: V.4 is blocked then, nothing is made up."""
    shutil.copytree(corpora, tmp_path / "corpora")
    folder = tmp_path / "corpora" / "tiny"
    rows = [json.loads(line) for line in (folder / "facts.jsonl").read_text().splitlines()]
    short = [{name: row[name] for name in ("clean", "corrupt", "target", "foil")} for row in rows]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short))
    split = {"seed": 0, "data_hash": "as the study hashed it", "val": []}
    split |= {"train": list(range(16)), "test": list(range(16, 32))}
    (folder / "facts.split.json").write_text(json.dumps(split))
    label(tmp_path / "corpora")
    handover = bench(tmp_path / "store", tmp_path / "corpora", battery="zero")
    assert handover.gate.unhooked("facts").null is None
    with pytest.raises(CorpusError, match="have no null prompts"):
        handover.run("facts", "null")


def test_release_forgets_the_model(corpora, tmp_path):
    made = bench(tmp_path, corpora, battery="zero")
    Findings(made).sweep("facts")
    assert "model" in made.__dict__
    made.release()
    assert "model" not in made.__dict__


# --- device, dtype, circumstances -----------------------------------------------------------------


def test_device_and_dtype_are_in_the_address_and_pass_to_other_models(corpora, tmp_path):
    made = bench(tmp_path, corpora, dtype="bfloat16", device="cuda:1")
    assert (made.device, made.dtype) == ("cuda:1", "bfloat16")
    config = made.config("facts", "zero")
    assert (config.device, config.dtype, config.bos) == ("cuda", "bfloat16", made.facts.bos)
    plain = bench(tmp_path, corpora)
    assert (plain.device, plain.dtype) == ("cpu", plain.entry.dtype)
    other = made.like(load_registry(ROOT / "fixtures" / "models.toml")["tiny-llama"])
    assert (other.device, other.dtype) == ("cuda:1", "bfloat16")
    assert not other.is_trusted and plain.is_trusted and plain.reference is plain
    # No text is split again for a model with the same tokenizer.
    assert made.encoders is other.encoders is other.reference.encoders is not plain.encoders
    # Nothing but the place of the device is left out of the address.
    assert config == bench(tmp_path, corpora, dtype="bfloat16", device="cuda:0").config(
        "facts", "zero"
    )


def test_a_changed_config_alone_is_another_address(corpora, tmp_path):
    """The same weights with another epsilon of the norms are another model."""
    own = bench(tmp_path, corpora)
    folder = tmp_path / "tiny-mistral"
    shutil.copytree(own.facts.folder, folder)
    entry = own.entry.model_copy(update={"source": folder})
    path = folder / "config.json"
    configs = []
    for epsilon in (None, 1e-3):
        if epsilon is not None:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": epsilon}))
        made = Bench(Setup(entry=entry, corpora=corpora), RunStore(tmp_path))
        configs.append(made.config("facts", "zero"))
    same, changed = configs
    assert same == own.config("facts", "zero")
    assert changed.weight_hash == same.weight_hash and changed.hash != same.hash


def test_a_model_without_a_bos_policy_has_that_of_its_architecture(corpora, tmp_path):
    made = bench(tmp_path, corpora)
    entry = made.entry.model_copy(update={"bos": None})
    config = Bench(Setup(entry=entry, corpora=corpora), RunStore(tmp_path)).config("facts", "zero")
    assert config.bos is True


def test_provenance_and_profile_say_what_computed(corpora, tmp_path):
    made = bench(tmp_path, corpora, dtype="bfloat16")
    run = made.run("facts", "baseline")
    provenance = run.provenance()
    (device,) = provenance["devices"]
    assert device["kind"] == "cpu" and device["total_memory"] > 10**8
    assert provenance["dtype"] == "bfloat16" and provenance["weights_dtype"] == "float16"
    assert provenance["attention"] == "eager" and provenance["placed_on"] == []
    assert provenance["architecture"] == "MistralForCausalLM" and provenance["commit"] is None
    assert provenance["config_hash"] == made.facts.config_hash
    assert provenance["environment"] == environment_fingerprint()
    assert provenance["tokenizer_state"] == state_of(load_tokenizer(made.facts.folder))
    assert provenance["bos_policy"] == "prepended to every prompt"
    profile = json.loads((run.path / "profile.json").read_text())
    assert 0 < profile["loading_seconds"] < 60 and profile["batch_halvings"] == 0
    assert profile["peak_device_bytes"] is None  # a CPU keeps no such count
    assert set(profile["seconds_by_shard"]) == {"baseline"}


def as_if_measured(folder, state, **versions):
    """A run as these versions would have left it, with a manifest that says so."""
    path, manifest = folder / "provenance.json", folder / "manifest.json"
    provenance, listed = json.loads(path.read_bytes()), json.loads(manifest.read_bytes())
    provenance["versions"] |= versions
    provenance["tokenizer_state"] = state
    path.write_text(json.dumps(provenance))
    entry = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    listed["files"]["provenance.json"] |= entry
    manifest.write_text(json.dumps(listed))


def take(made, kind):
    """A run, or a reading."""
    return made.run("facts", "baseline") if kind == "run" else made.reading("facts", Lengths())


@pytest.mark.parametrize("kind", ["run", "reading"])
def test_a_tokenizer_that_other_versions_read_otherwise_is_found(
    corpora, tmp_path, monkeypatch, kind
):
    """Its files are the same, so the address is; what they come to is recorded."""
    loads = []
    monkeypatch.setattr(
        "tinyablation.models.tokenizer_state.load_tokenizer",
        lambda folder: loads.append(folder) or load_tokenizer(folder),
    )
    monkeypatch.setattr("tinyablation.models.tokenizer_state.note_of", lambda *given: None)
    folder = take(bench(tmp_path, corpora), kind).path
    state = json.loads((folder / "provenance.json").read_bytes())["tokenizer_state"]
    loads.clear()
    as_if_measured(folder, "0" * 64)  # never with these versions: so nothing is loaded to look
    take(bench(tmp_path, corpora), kind)
    as_if_measured(folder, None, transformers="5.22.2")  # an older run, which does not say
    take(bench(tmp_path, corpora), kind)
    assert loads == []
    as_if_measured(folder, state, transformers="5.22.2")
    take(bench(tmp_path, corpora), kind)
    assert len(loads) == 1
    as_if_measured(folder, "0" * 64, transformers="5.22.2")
    before = (folder / "provenance.json").read_bytes()
    with pytest.raises(
        Damaged,
        match=r"the tokenizer of 'tiny-mistral' is another than it was, though its files are the "
        r"same \(transformers 5.22.2 then and \S+ now\). Run again with --remeasure[^\n]*$",
    ):
        take(bench(tmp_path, corpora), kind)
    assert (folder / "provenance.json").read_bytes() == before
    made = bench(tmp_path, corpora)
    made.store = replace(made.store, remeasure=True)
    again = take(made, kind).path / "provenance.json"
    assert json.loads(again.read_bytes())["tokenizer_state"] == state
    assert len(list((tmp_path / ".set-aside").iterdir())) == 1


class Turn:
    """One that nobody else waits for."""

    def release(self):
        pass


@pytest.mark.slow
def test_making_way_drops_models_and_keeps_tables(corpora, tmp_path):
    made = bench(tmp_path, corpora, dtype="float16")
    other = made.like(load_registry(ROOT / "fixtures" / "models.toml")["tiny-llama"])
    findings = Findings(made)
    table = findings.sweep("facts").table
    other.run("facts", "baseline")
    reference = made.reference
    made.yield_device()
    assert "model" in made.__dict__  # on a CPU nobody waits for it
    for each in (made, other):
        each._residency.turn = Turn()
    made.yield_device()
    for each in (made, other):
        assert "model" not in each.__dict__ and "engine" not in each.__dict__
    assert findings.sweep("facts").table is table
    # What verifies holds no accelerator, and goes when the bench does.
    assert made.reference is reference and "model" in reference.__dict__
    made.release()
    assert "reference" not in made.__dict__ and "model" not in reference.__dict__


def test_a_bench_that_waits_for_anothers_run_gives_its_model_up(corpora, tmp_path):
    made = bench(tmp_path, corpora)
    made.engine  # noqa: B018 - loads the model
    made._residency.turn = Turn()  # as if on an accelerator
    name = made.config("facts", "baseline").name
    free, runs = threading.Event(), []
    with RunStore(tmp_path).lock(name):
        waiting = threading.Thread(target=lambda: runs.append(made.run("facts", "baseline")))
        made.drop_model = lambda: (Bench.drop_model(made), free.set())
        waiting.start()
        assert free.wait(60)
        assert "model" not in made.__dict__
    waiting.join(60)
    assert runs[0].name == name and "model" in made.__dict__  # loaded again when it was its turn


@pytest.mark.slow
def test_validity_knows_the_noise_of_every_side(corpora, tmp_path):
    made = bench(tmp_path, corpora, dtype="bfloat16")
    tables = made.gate.unhooked("facts")
    noises = [made.run("facts", name).noise_floor() for name in ("zero", "corrupt", "null")]
    assert tables.noise == max(noises) > 1e-3 and tables.noise.where == "cpu in bfloat16"
