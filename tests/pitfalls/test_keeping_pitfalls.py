"""P12, P17-P19, P21: what corpora, runs and reports must never do. Run: pytest tests/pitfalls"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.small_tokenizers import sentencepiece_like
from tests.synthetic_runs import (
    KEYS,
    SHARDS,
    Counting,
    compute,
    make_config,
    make_examples,
    verify,
)
from tinyablation.corpora.examples import CONDITIONS, load_corpus, load_split
from tinyablation.corpora.filtering import BuildReport, fault, finish
from tinyablation.corpora.knowledge import load_knowledge
from tinyablation.corpora.tokenisation import TokenisationError, answer_id, load_tokenizer
from tinyablation.records.plain import RecordError, plain
from tinyablation.runs.store import RunStore
from tinyablation.statistics.clusters import StatisticsError
from tinyablation.statistics.intervals import cluster_interval, generator

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "fixtures" / "organisms" / "tiny-gpt2"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(TOKENIZER))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_p12_committed_prompts_are_unique_and_splits_share_nothing(condition):
    corpus = load_corpus(ROOT / "corpora" / "tiny" / f"{condition}.jsonl")
    split = load_split(ROOT / "corpora" / "tiny" / f"{condition}.split.json", corpus)
    assert len({example.clean for example in corpus.examples}) == len(corpus.examples)
    halves = [[corpus.examples[row] for row in rows] for rows in split.rows.values()]
    for field in ("clean", "fact_id", "cluster_id"):
        first, second = ({getattr(example, field) for example in half} for half in halves)
        assert not first & second


def test_p12_a_prompt_given_twice_or_with_its_answer_is_dropped(tokenizer):
    corpus = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl")
    one = corpus.examples[0]
    telling = replace(one, clean=f"The answer is{one.target}. {one.clean}")
    assert "answer stands in a prompt" in str(fault(tokenizer, "facts", telling))
    assert fault(tokenizer, "facts", one) is None
    again = replace(one, fact_id="copy", cluster_id="copy")
    rows = [(example, "discovery") for example in corpus.examples] + [(again, "confirmation")]
    report = BuildReport()
    made, _ = finish(tokenizer, "tiny", "facts", rows, 0, report)
    assert len(made.examples) == len(corpus.examples)
    assert "the same prompt again" in report.reasons("facts")


def test_p12_clusters_are_the_unit_of_an_interval():
    """The same twelve facts copied eight times are no more evidence than they were."""
    values = generator(0, "facts").normal(1.0, 1.0, 12)
    once = cluster_interval(values, list(range(12)), generator(0, "a"))
    copied = cluster_interval(np.repeat(values, 8), np.repeat(np.arange(12), 8), generator(0, "a"))
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.02)
    with pytest.raises(StatisticsError, match="no cluster id"):
        cluster_interval(values, [None] * 12, generator(0, "a"))


def test_p17_an_address_is_what_a_run_depends_on():
    """Device kind, dtype, seed, weights: another of any is another run, and none overwrites."""
    base = make_config()
    for change in (
        {"device": "cuda"},
        {"dtype": "float16"},
        {"seed": 1},
        {"weight_hash": "f" * 64},
        {"split_hash": "f" * 64},
        {"bos": True},
    ):
        assert make_config(**change).name != base.name, change
    assert make_config(device="cuda:0").name == make_config(device="cuda:1").name


def test_p17_hashes_are_of_text_not_of_line_ends(tmp_path):
    files = sorted((ROOT / "corpora" / "knowledge").glob("*.toml"))
    for file in files:
        crlf = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        (tmp_path / file.name).write_bytes(crlf)
    ours, theirs = load_knowledge(ROOT / "corpora" / "knowledge"), load_knowledge(tmp_path)
    assert ours.relations == theirs.relations and ours.wording == theirs.wording
    corpus = load_corpus(ROOT / "corpora" / "tiny" / "facts.jsonl")
    text = (ROOT / "corpora" / "tiny" / "facts.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "facts.jsonl").write_bytes(text)
    assert load_corpus(tmp_path / "tiny" / "facts.jsonl").content_hash == corpus.content_hash


def test_p18_an_interrupted_run_says_what_is_missing_and_goes_on(tmp_path):
    def stopping(shard):
        if shard.key == KEYS[2]:
            raise KeyboardInterrupt
        return compute(shard)

    store, config = RunStore(tmp_path), make_config()
    with pytest.raises(KeyboardInterrupt):
        store.obtain(config, SHARDS, stopping, make_examples(), verify=verify)
    folder = tmp_path / config.name
    said = json.loads((folder / "partial_summary.json").read_text())
    assert (said["done"], said["missing"]) == (KEYS[:2], KEYS[2:])
    assert not (folder / "metrics" / "summary.json").exists()
    counting = Counting()
    store.obtain(config, SHARDS, counting, make_examples(), verify=verify)
    assert counting.keys == KEYS[2:]
    assert not (folder / "partial_summary.json").exists()


def test_p19_an_answer_is_tokenised_after_its_prompt():
    """A SentencePiece tokenizer gives a lone word a spare space; in context there is one id."""
    tokenizer = sentencepiece_like(["The", "capital", "of", "France", "is", "Paris"])
    prompt = "The capital of France is"
    found = answer_id(tokenizer, prompt, " Paris")
    whole = tokenizer(f"{prompt} Paris", add_special_tokens=False)["input_ids"]
    assert whole[-1] == found
    assert len(tokenizer(" Paris", add_special_tokens=False)["input_ids"]) > 1
    with pytest.raises(TokenisationError, match="not one"):
        answer_id(tokenizer, prompt, " Paris Paris")


def test_p21_only_plain_values_reach_a_report():
    """A numpy scalar on a pytest report makes xdist lose it, and the session exit 0."""
    given = {"k": np.float64(1.5), "n": [np.int64(3), np.bool_(True)], "t": np.str_("x")}
    made = plain(given)
    assert made == {"k": 1.5, "n": [3, True], "t": "x"}
    kinds = (type(made["k"]), type(made["n"][0]), type(made["n"][1]), type(made["t"]))
    assert kinds == (float, int, bool, str)
    with pytest.raises(RecordError, match="only finite numbers"):
        plain({"k": float("nan")})


def test_p21_a_test_that_never_reported_is_missed():
    """The ledger of the session: every collected test reports exactly once."""
    from tinyablation.plugin.report_guard import Ledger

    ledger = Ledger()
    ledger.expected.update(["a", "b"])
    for when in ("setup", "call", "teardown"):
        ledger.pytest_runtest_logreport(SimpleNamespace(nodeid="a", when=when, passed=True))
    assert ledger.missing() == ["b"] and not ledger.complete
    # Its call was lost between processes, though set-up and teardown arrived.
    for when in ("setup", "teardown"):
        ledger.pytest_runtest_logreport(SimpleNamespace(nodeid="b", when=when, passed=True))
    assert ledger.missing() == ["b"]
