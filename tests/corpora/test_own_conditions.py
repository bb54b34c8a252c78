"""Run: pytest tests/corpora/test_own_conditions.py"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinyablation.cluster.messages import BenchFacts, JobError
from tinyablation.cluster.worker import make_bench
from tinyablation.corpora import library as corpora_library
from tinyablation.corpora.examples import SPLITS, CorpusError
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.library import Library
from tinyablation.corpora.own_conditions import OwnCondition, check_name, read_own
from tinyablation.corpora.tokenisation import load_tokenizer
from tinyablation.evidence.bundle import write_bundle
from tinyablation.evidence.rederivation import EvidenceError
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import load_registry
from tinyablation.records.conditions import NAMES
from tinyablation.records.records import Record, RecordFile, Session
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "fixtures" / "organisms" / "tiny-gpt2"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Twenty-four pairs of facts of the embedded models' world, as a user might give them."""
    kept: dict[str, list[Row]] = {}
    for line in (ROOT / "corpora" / "tiny" / "facts.jsonl").read_text().splitlines():
        row = json.loads(line)
        short = {name: row[name] for name in ("clean", "corrupt", "target", "foil", "null")}
        kept.setdefault(row["cluster_id"], []).append(short | {"cluster": row["cluster_id"]})
    return [row for cluster in list(kept)[:24] for row in kept[cluster]]


@pytest.fixture
def own(tmp_path: Path) -> Callable[[list[Row]], OwnCondition]:
    def write(rows: list[Row]) -> OwnCondition:
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return read_own("mine", path)

    return write


def test_the_example_for_users_has_no_defects():
    found = read_own("ioi", ROOT / "corpora" / "examples" / "ioi.jsonl")
    assert found.defects == () and len(found.examples) == 40 and found.n_clusters == 20
    text = (ROOT / "corpora" / "examples" / "ioi.jsonl").read_text()
    assert '"target"' in text and "target_id" not in text


def test_four_fields_are_enough(own):
    """Lines that share a prompt, on either side, are one cluster."""
    made = own(
        [
            {"clean": "A is", "corrupt": "B is", "target": " x", "foil": " y"},
            {"clean": "B is", "corrupt": "A is", "target": " y", "foil": " x"},
            {"clean": "C is", "corrupt": "D is", "target": " z", "foil": " w", "null": None},
        ]
    )
    assert [row.cluster_id for row in made.examples] == ["A is", "A is", "C is"]
    assert [row.fact_id for row in made.examples] == ["A is", "B is", "C is"]
    assert {(row.null, row.template_id, row.cell) for row in made.examples} == {("", "", "")}


def test_optional_fields_have_two_names(own, rows):
    short = {**rows[0], "template": "t", "fact": "f", "cell": "c"}
    long = {**rows[0], "template_id": "t", "fact_id": "f", "cell": "c", "aligned": False}
    long["cluster_id"] = long.pop("cluster")
    one, other = own([short]).examples[0], own([long]).examples[0]
    assert (one.template_id, one.fact_id, one.cell) == ("t", "f", "c")
    assert (one.cluster_id, one.template_id) == (other.cluster_id, other.template_id)


def test_a_family_is_the_first_part_of_the_wording(own, rows):
    made = own([{**rows[0], "template": "a/b", "family": "said"}]).examples[0]
    assert (made.template_id, made.family) == ("said/a.b", "said")
    assert own([{**rows[0], "template": "a/b"}]).examples[0].family == ""


BROKEN: dict[str, tuple[Any, str]] = {
    "no corrupt prompt": ({"corrupt": ""}, "field 'corrupt' is empty"),
    "no foil": ({"foil": ...}, "field 'foil' is missing"),
    "no text": ({"clean": 5}, "field 'clean': 5 is not text"),
    "no text in an optional one": ({"cluster": 5}, "field 'cluster': 5 is not text"),
    "null where there must be text": ({"target": None}, "field 'target': None is not text"),
    "a slip": ({"cluser": "x"}, "field 'cluser' is unknown; did you mean 'cluster'"),
    "one name twice": ({"cluster_id": "x"}, "'cluster' and 'cluster_id' are the same"),
    "the foil again": ({"foil": " Moscow", "target": " Moscow"}, "' Moscow' is the target too"),
    "an unknown half": ({"split": "train"}, "'train' is neither 'discovery' nor 'confirmation'"),
    "a half in some lines": ({"split": "discovery"}, "field 'split' is missing, but other lines"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_line_is_refused_with_file_line_and_field(what, own, rows):
    change, message = BROKEN[what]
    broken = {key: value for key, value in {**rows[1], **change}.items() if value is not ...}
    line = 1 if what == "a half in some lines" else 2
    with pytest.raises(CorpusError, match=rf"mine\.jsonl, line {line}: .*{re.escape(message)}"):
        own([rows[0], broken])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no examples in it"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: must be a JSON object, not list"),
        ("\n{}", "line 1: empty; remove it"),
        ('{"clean": "a", "clean": "b"}', "'clean' occurs twice"),
        (b"\xff", "line 1: not UTF-8"),
    ],
)
def test_what_is_no_json_lines_is_refused(tmp_path: Path, text: str | bytes, message: str):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CorpusError, match=message):
        read_own("mine", path)


def test_a_path_to_nothing_is_said(tmp_path: Path):
    with pytest.raises(CorpusError, match="no such file"):
        read_own("mine", tmp_path / "none.jsonl")
    with pytest.raises(CorpusError, match="a folder"):
        read_own("mine", tmp_path)


@pytest.mark.parametrize("name", [*NAMES, "all", "Mine", "my-own", "1st", "", "a b", "a/b"])
def test_names_that_are_taken_or_read_badly_are_refused(name: str):
    with pytest.raises(CorpusError, match="taken|cannot name"):
        check_name(name)


def test_splits_share_no_prompt_and_no_cluster_and_follow_the_seed(own, rows):
    made, tiny = own(rows), load_tokenizer(str(FOLDER))
    corpus, split, defects = made.for_tokenizer(tiny, "tiny", 0)
    assert defects == () and all(row.aligned for row in corpus.examples)
    assert corpus.condition == "mine" and split.data_hash == corpus.content_hash
    assert sorted(row for half in SPLITS for row in split.rows[half]) == list(range(len(rows)))
    sides = [{corpus.examples[row].cluster_id for row in split.rows[half]} for half in SPLITS]
    assert len(sides[0]) == len(sides[1]) == 12 and not sides[0] & sides[1]
    again = made.for_tokenizer(tiny, "tiny", 0)[1]
    other = made.for_tokenizer(tiny, "tiny", 1)[1]
    assert again == split and other.rows != split.rows


def test_a_prompt_that_stands_twice_is_on_one_side(own, rows):
    """Whatever cluster each of the two names."""
    twice = [*rows, *({**row, "cluster": f"again {row['cluster']}"} for row in rows)]
    corpus, split, _ = own(twice).for_tokenizer(load_tokenizer(str(FOLDER)), "tiny", 0)
    sides = [{corpus.examples[row].clean for row in split.rows[half]} for half in SPLITS]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_a_split_of_the_file_is_taken_as_it_is(own, rows):
    halves = [SPLITS[int(row["cluster"] > rows[40]["cluster"])] for row in rows]
    given = [{**row, "split": half} for row, half in zip(rows, halves, strict=True)]
    made = own(given)
    _, split, _ = made.for_tokenizer(load_tokenizer(str(FOLDER)), "tiny", 5)
    assert [split.of_row()[row] for row in range(len(rows))] == halves
    assert "given by the file" in made.about(5)
    given[0]["split"] = next(half for half in SPLITS if half != halves[0])
    with pytest.raises(CorpusError, match=r"line \d+: field 'split': its cluster .* is also in"):
        own(given)


def test_one_cluster_cannot_be_split(own, rows):
    made = own([row for row in rows if row["cluster"] == rows[0]["cluster"]])
    with pytest.raises(CorpusError, match="form one cluster and cannot be split"):
        made.for_tokenizer(load_tokenizer(str(FOLDER)), "tiny", 0)


def test_what_the_tokenizer_cannot_tell_apart_is_left_out_of_the_half_it_is_in(own, rows):
    tiny = load_tokenizer(str(FOLDER))
    _, whole, _ = own(rows).for_tokenizer(tiny, "tiny", 0)
    rows = [{**rows[0], "foil": f"{rows[0]['target']} Rome"}, *rows[1:]]
    corpus, split, defects = own(rows).for_tokenizer(tiny, "tiny", 0)
    assert len(corpus.examples) == len(rows) - 1
    assert any("left out" in each.kind and each.line == 1 for each in defects)
    halves = [whole.of_row()[row] for row in range(len(rows))]
    assert [split.of_row()[row] for row in range(len(rows) - 1)] == halves[1:]


def test_a_condition_that_needs_clusters_is_refused_with_the_counts_where_fewer_remain(own, rows):
    tiny = load_tokenizer(str(FOLDER))
    needs = replace(own(rows), least=24)
    assert len(needs.for_tokenizer(tiny, "tiny", 0)[0].examples) == len(rows)
    gone = {each["cluster"] for each in rows[:1]}
    rows = [
        {**row, "foil": f"{row['target']} Rome"} if row["cluster"] in gone else row for row in rows
    ]
    own(rows).for_tokenizer(tiny, "tiny", 0)  # a user's is measured with what remains
    with pytest.raises(TooFewPrompts, match="has words for 23 of 24 clusters, 24 are"):
        replace(own(rows), least=24).for_tokenizer(tiny, "tiny", 0)
    # Nor does a word that the tokenizer cuts into pieces; of a user's condition it is measured.
    cut = [{**row, "foil": " Ouagadougou"} if row["cluster"] in gone else row for row in rows]
    assert len(own(cut).for_tokenizer(tiny, "tiny", 0)[0].examples) == len(rows)
    with pytest.raises(TooFewPrompts, match="for 23 of 24"):
        replace(own(cut), least=24).for_tokenizer(tiny, "tiny", 0)


def test_a_library_gives_it_for_any_tokenizer(own, rows, tmp_path: Path):
    library = Library(ROOT / "corpora", own={"mine": own(rows)}, seed=3)
    corpus, split = library.corpus(FOLDER, "mine", "tiny-gpt2")
    assert split.seed == 3 and library.lacks(FOLDER, "mine", "tiny-gpt2") is None
    assert library.defects(FOLDER, "mine", "tiny-gpt2") == ()
    assert library.corpus(FOLDER, "mine", "tiny-gpt2")[0] is corpus, "tokenised once"
    assert library.conditions(FOLDER, "tiny-gpt2") == NAMES


def test_a_library_loads_a_tokenizer_once_and_refuses_a_condition_from_memory(
    own, rows, monkeypatch
):
    """Every claim of a pack about a condition asks again whether a model has it."""
    made = own(rows)
    library = Library(ROOT / "corpora", own={"mine": made, "needs": replace(made, least=99)})
    loaded, tokenised = [], []
    load, tokenise = corpora_library.load_as_measured, OwnCondition.for_tokenizer
    monkeypatch.setattr(
        corpora_library, "load_as_measured", lambda folder: loaded.append(folder) or load(folder)
    )
    monkeypatch.setattr(
        OwnCondition,
        "for_tokenizer",
        lambda condition, *given: tokenised.append(condition.least) or tokenise(condition, *given),
    )
    for _ in range(2):
        library.corpus(FOLDER, "mine", "tiny-gpt2")
        with pytest.raises(TooFewPrompts, match="tiny-gpt2, mine: .* 24 of 24 clusters, 99") as met:
            library.corpus(FOLDER, "needs", "tiny-gpt2")
        assert met.value.reason.startswith("the tokenizer has words for 24")
    assert loaded == [FOLDER] and tokenised == [0, 99]


def test_its_runs_have_their_own_addresses_here_and_on_a_worker(own, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYABLATION_STORES", str(tmp_path))
    entry = load_registry(ROOT / "fixtures" / "models.toml")["tiny-gpt2"]
    made = own(rows)
    store = RunStore(tmp_path / "runs")
    bench = Bench(Setup(entry=entry, corpora=ROOT / "corpora"), store, own={"mine": made})
    config = bench.config("mine", "zero")
    assert (config.condition, config.name.split("_")[0]) == ("mine", "tiny-gpt2-zero-mine")
    twin = bench.like(load_registry(ROOT / "fixtures" / "models.toml")["tiny-gpt2-plain"])
    assert twin.config("mine", "zero").corpus_hash == config.corpus_hash
    store.root.mkdir()
    facts = BenchFacts.model_validate_json(BenchFacts.of(bench).model_dump_json())
    assert make_bench(facts).config("mine", "zero") == config
    made.path.unlink()
    with pytest.raises(JobError, match=r"sees no file .*mine\.jsonl of the condition mine"):
        make_bench(facts)


def test_a_bundle_without_the_file_is_refused(tmp_path: Path):
    texts = ("claim", "family", "test", "name", "statement", "estimator", "threshold", "model")
    record = Record(
        **dict.fromkeys(texts, "x"),
        refuted_if="x",
        condition="mine",
        verdict="supported",
        reason="because",
        outcome="passed",
    )
    session = Session(
        started="2025-01-31T12:00:00+00:00",
        command="pytest",
        versions={},
        platform="x",
        device="cpu",
        predictions_hash="x",
        complete=True,
    )
    file = RecordFile(session=session, records=[record])
    with pytest.raises(EvidenceError, match="the condition mine is from a file"):
        write_bundle(tmp_path / "x.zip", ROOT, tmp_path, file.records, file)
    assert not (tmp_path / "x.zip").exists()
