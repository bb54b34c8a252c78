"""What travels to a worker, and what the worker does with it.

Run: pytest tests/cluster/test_worker.py
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.benches import bench_of
from tests.small_corpora import put_corpora
from tinyablation.cluster import worker
from tinyablation.cluster.messages import BenchFacts, Failure, Job, JobError, Receipt
from tinyablation.cluster.serialization import describe
from tinyablation.cluster.worker import DESK, STORES, run_job
from tinyablation.corpora.examples import CorpusError
from tinyablation.errors import ModelChanged, TooLarge
from tinyablation.interventions.batteries import battery
from tinyablation.measurement.attention_readings import GivenTexts, MarkedText, RepeatedTokens
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.head_readings import Direction
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.runs.store import TABLES, RunStore

ROOT = Path(__file__).parents[2]
REGISTRY = load_registry(ROOT / "fixtures" / "models.toml")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    return put_corpora(tmp_path_factory.mktemp("corpora"))


def bench(store: Path, corpora: Path, model: str = "tiny-llama", **options) -> Bench:
    store.mkdir(exist_ok=True)
    return bench_of(model, store, corpora, **options)


def job_of(made: Bench, what="zero", kind="run", shards=()) -> Job:
    chosen = battery(what) if isinstance(what, str) else what
    name = chosen.name(made) if kind == "reading" else chosen.name
    return Job(
        kind=kind,
        bench=BenchFacts.of(made),
        config=made.config("facts", name, chosen.sample),
        what=describe(chosen),
        shards=shards,
    )


def done(job: Job) -> Receipt:
    return Receipt.model_validate_json(run_job(job.model_dump_json()))


def test_a_job_is_plain_json_and_reads_back(corpora, tmp_path):
    job = job_of(bench(tmp_path / "runs", corpora, device="cuda:1", dtype="bfloat16"))
    text = job.model_dump_json()
    assert Job.model_validate_json(text) == job
    setup = json.loads(text)["bench"]["setup"]
    assert setup["device"] == "cuda" and setup["dtype"] == "bfloat16"
    assert setup["entry"]["source"] == str(REGISTRY["tiny-llama"].source)


@pytest.mark.slow
def test_a_worker_computes_the_shards_of_its_job_and_the_last_one_finishes(corpora, tmp_path):
    here = bench(tmp_path / "here", corpora)
    alone = here.run("facts", "zero")
    there = bench(tmp_path / "there", corpora)
    keys = ["L00-L03", "baseline"]
    for last, key in enumerate(keys):
        receipt = done(job_of(there, shards=(key,)))
        assert receipt.error is None and receipt.run == alone.name and receipt.device == "cpu"
        assert receipt.complete == bool(last)
        assert set(receipt.shards) == {key} and receipt.seconds >= receipt.shards[key] > 0
        assert receipt.worker == worker.worker_name()
    run = there.store.open(alone.name)
    for name in TABLES:
        assert (run.path / name).read_bytes() == (alone.path / name).read_bytes()
    assert "model" not in there.__dict__
    again = done(job_of(there, shards=("baseline",)))
    assert again.shards == {} and again.error is None


def test_a_whole_run_and_a_reading_are_jobs_too(corpora, tmp_path):
    made = bench(tmp_path / "runs", corpora)
    whole = job_of(made, "baseline")
    assert done(whole).error is None and made.store.status(whole.config) == "complete"
    reading = job_of(made, Direction((0, 0)), "reading")
    assert done(reading).error is None
    assert made.reading("facts", Direction((0, 0))).name == reading.config.name
    assert "model" not in made.__dict__


@pytest.mark.parametrize(
    "wanted",
    [RepeatedTokens(4, 6), GivenTexts((MarkedText(" red blue red", ((3, 2),)),), "induction")],
)
def test_a_reading_without_a_corpus_is_a_job_too(wanted, tmp_path):
    made = bench(tmp_path / "runs", tmp_path)
    config = made.config_without_corpus(wanted.name(made))
    job = Job(kind="reading", bench=BenchFacts.of(made), config=config, what=describe(wanted))
    receipt = done(job)
    assert receipt.error is None and receipt.complete
    found = made.reading_without_corpus(wanted)
    assert found.name == config.name and "model" not in made.__dict__
    alone = bench(tmp_path / "alone", tmp_path).reading_without_corpus(wanted)
    for name, values in alone.tensors().items():
        assert (found.tensors()[name] == values).all()
    other = job.model_copy(update={"config": config.model_copy(update={"seed": 5})})
    assert "seed differ" in done(other).error.message


def test_a_worker_keeps_one_bench_from_job_to_job(corpora, tmp_path):
    first = job_of(bench(tmp_path / "runs", corpora), "baseline")
    assert done(first).error is None
    kept = DESK.bench
    assert done(job_of(bench(tmp_path / "runs", corpora), "corrupt")).error is None
    assert DESK.bench is kept and "model" in kept.__dict__
    other = bench(tmp_path / "runs", corpora, "tiny-llama-plain")
    assert done(job_of(other, "baseline")).error is None
    assert DESK.bench is not kept and "model" not in kept.__dict__


def test_a_worker_whose_model_changed_describes_it_anew(corpora, tmp_path):
    folder = shutil.copytree(REGISTRY["tiny-llama"].source, tmp_path / "model")
    entry = REGISTRY["tiny-llama"].model_copy(update={"source": Path(folder), "twin": None})
    store = tmp_path / "runs"
    store.mkdir()

    def made() -> Bench:
        return Bench(Setup(entry=entry, corpora=corpora), RunStore(store), threads=1)

    old = made()
    assert done(job_of(old, "baseline")).error is None
    shutil.copyfile(
        REGISTRY["tiny-llama-plain"].source / "model.safetensors", folder / "model.safetensors"
    )
    error = done(job_of(old, "corrupt")).error
    with pytest.raises(ModelChanged, match="model 'tiny-llama': .*was changed while it was in use"):
        raise error.rebuilt("corrupt", "host:1")
    assert old.store.status(job_of(old, "corrupt").config) != "complete"
    assert DESK.bench is None
    new = job_of(made(), "corrupt")
    assert new.config.weight_hash != old.facts.weight_hash
    assert done(new).error is None and old.store.status(new.config) == "complete"


def test_errors_come_back_as_they_were_raised(corpora, tmp_path, monkeypatch):
    made = bench(tmp_path / "runs", corpora)
    for error, kind, said in (
        (TooLarge("it needs 99 GB"), TooLarge, "^it needs 99 GB$"),
        (CorpusError("no rows"), CorpusError, "^no rows$"),
        (ZeroDivisionError("by nothing"), JobError, "ZeroDivisionError: by nothing\n(.*\n)+"),
    ):

        def broken(*args, error=error):
            raise error

        monkeypatch.setattr(Bench, "advance", lambda *args, broken=broken, **rest: broken())
        receipt = done(job_of(made, shards=("baseline",)))
        rebuilt = receipt.error.rebuilt("zero, shard baseline", receipt.worker)
        assert type(rebuilt) is kind
        assert re.search(said, str(rebuilt))
        (note,) = rebuilt.__notes__
        assert receipt.worker in note and "shard baseline" in note


def test_an_error_of_a_class_that_is_not_known_here_is_a_job_error():
    failure = Failure(kind="tinyablation.elsewhere:Strange", message="so it is")
    with pytest.raises(JobError, match="a-run: so it is"):
        raise failure.rebuilt("a-run", "host:1")


def test_a_worker_with_other_corpora_or_another_version_refuses(corpora, tmp_path):
    made = bench(tmp_path / "runs", corpora)
    job = job_of(made, "baseline")
    other = job.config.model_copy(update={"corpus_hash": "f" * 64, "engine_version": "999"})
    receipt = done(job.model_copy(update={"config": other}))
    assert "corpus_hash, engine_version differ" in receipt.error.message
    lost = job.bench.model_copy(update={"store": tmp_path / "nowhere"})
    receipt = done(job.model_copy(update={"bench": lost}))
    assert "sees no folder" in receipt.error.message and "the store" in receipt.error.message
    assert not any((tmp_path / "runs").glob("tiny-*"))
    text = job.model_dump_json().replace('"kind"', '"sort"')
    assert "cannot read the job" in Receipt.model_validate_json(run_job(text)).error.message


def test_a_worker_writes_where_its_operator_says_and_nowhere_else(corpora, tmp_path, monkeypatch):
    """Row 1c: a job names the store, and a whole run came to lie in whichever folder it named."""
    served, other = tmp_path / "served", tmp_path / "home"
    (tmp_path / "served-too").mkdir()
    made = bench(other, corpora)
    job = job_of(made, "baseline")
    served.mkdir()
    (served / "link").symlink_to(other)
    through = served / ".." / "home"
    for listed in ("", str(served), f"{served}{os.pathsep}{tmp_path / 'served-too'}"):
        monkeypatch.setenv(STORES, listed)
        for store in (other, served / "link", through, Path("/")):
            facts = job.bench.model_copy(update={"store": store})
            error = done(job.model_copy(update={"bench": facts})).error
            assert error is not None and f"does not write to {store}" in error.message
            assert f"{STORES} (" in error.message and "\n" not in error.message
    assert [*other.iterdir()] == []
    monkeypatch.setenv(STORES, f"{served}{os.pathsep}{other}")
    assert done(job).error is None and made.store.status(job.config) == "complete"
    inside = bench(served / "of-a-user", corpora)
    assert done(job_of(inside, "baseline")).error is None


def test_a_receipt_says_things_and_does_none(monkeypatch):
    sent = {
        "run": "r\x1b[2J",
        "worker": "w\u202e",
        "error": {"message": "a\x07b\nc", "trace": "\x9b"},
    }
    receipt = Receipt.read(json.dumps(sent))
    assert (receipt.run, receipt.worker) == ("rU+001B[2J", "wU+202E")
    assert (receipt.error.message, receipt.error.trace) == ("aU+0007b\nc", "U+009B")
    for kind in ("os:system", "tinyablation.cluster.messages:importlib", "tinyablation.a\0:B", ":"):
        error = Failure(kind=kind, message="so it is").rebuilt("a-run", "host:1")
        assert type(error) is JobError and str(error) == "a-run: so it is"
    for text in ("", "[]", "{}", '{"run": 1}', "gASVBQ==", '{"run": "r", "worker": "w", "x": 1}'):
        with pytest.raises(JobError, match="a receipt that is none") as caught:
            Receipt.read(text)
        assert "\n" not in str(caught.value)
    with pytest.raises(JobError, match="at most 1,048,576 are read"):
        Receipt.read(" " * (2**20 + 1))
