"""The gate: what the unhooked model knows decides what is measured of it, before any hook.

The crossed corpora are facts of the embedded models, by hand: see small_corpora.
Run: pytest tests/measurement/test_gate.py
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.benches import bench_of
from tests.small_corpora import KNOWN, UNKNOWN, crossed, put_corpora, put_crossed
from tinyablation.analysis.findings import Findings
from tinyablation.interventions.batteries import (
    BATTERIES,
    EVERYTHING,
    ONE_EACH,
    PER_RELATION,
    UNHOOKED,
    Sample,
)
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.gate import EACH, RELATIONS
from tinyablation.measurement.validity import blocks
from tinyablation.runs.store import RunStore

ROOT = Path(__file__).parents[2]
FACTS = "facts"


bench = partial(bench_of, "tiny-gpt2")


def runs(store: Path) -> list[str]:
    """The batteries of which the store has a run, in order."""
    return sorted(RunStore(store).open(path.name).config.battery for path in store.glob("*_*"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """One family that the model knows, one that it fails."""
    return put_crossed(tmp_path_factory.mktemp("crossed"), crossed())


@pytest.fixture(scope="module")
def made(tmp_path_factory, corpora) -> Bench:
    return bench(tmp_path_factory.mktemp("store"), corpora)


def test_the_family_that_fails_is_left_out(made):
    found = made.gate.validities(FACTS)
    assert {name: each.status for name, each in found.items()} == {
        KNOWN: "inconclusive",  # all known, but of ten relations
        UNKNOWN: "refuted",
    }
    assert made.gate.families(FACTS) == (KNOWN,)
    assert not blocks(made.gate.validity(FACTS)) and made.gate.reason_blocked(FACTS) is None
    assert set(made.gate.counting(FACTS).clean["template_id"]) == {f"{KNOWN}/{n}" for n in "abc"}


def test_the_gate_asks_some_of_every_family(made):
    """Pairs of mirrors, of each relation; each corrupt prompt is the clean one of its mirror."""
    sample = Sample(per_cluster=EACH, among="all")
    assert [each.name for each in made.gate.batteries(FACTS)] == ["baseline", "null"]
    assert all(each.sample == sample for each in made.gate.batteries(FACTS))
    corpus, _ = made.corpus(FACTS)
    asked = [corpus.examples[row] for row in made.rows(FACTS, sample)]
    counts = {name: sum(row.family == name for row in asked) for name in (KNOWN, UNKNOWN)}
    assert counts == {KNOWN: 20, UNKNOWN: 20} and RELATIONS * EACH > 20
    tables = made.gate.unhooked(FACTS)
    assert list(tables.corrupt["logit_diff"]) != list(tables.clean["logit_diff"])
    for row, clean, corrupt in zip(
        asked, tables.clean["clean"], tables.corrupt["clean"], strict=True
    ):
        assert (row.clean, row.corrupt) == (clean, corrupt)


def test_mirrors_give_what_the_corrupt_prompts_would(made):
    corrupt = replace(BATTERIES["corrupt"], sample=Sample(per_cluster=EACH, among="all"))
    asked = made.run(FACTS, corrupt).table().sort_values("example")
    derived = made.gate.unhooked(FACTS).corrupt
    assert list(derived["target"]) == list(asked["target"])
    assert list(derived["logit_diff"]) == pytest.approx(list(asked["logit_diff"]), abs=1e-4)


def test_sweeps_run_on_known_facts_of_counting_families(made):
    corpus, _ = made.corpus(FACTS)
    selection = made.gate.selection(FACTS)
    assert selection.families == (KNOWN,) and selection.lacking == ""
    assert {corpus.examples[row].family for row in selection.rows} == {KNOWN}
    assert selection.share == 1.0 and len(selection.known) == 10
    swept = made.rows(FACTS)
    assert set(swept) <= selection.rows
    assert len(swept) == 10 * PER_RELATION and set(swept.values()) == {"discovery", "confirmation"}
    assert len(made.rows(FACTS, ONE_EACH)) == 10
    assert set(made.rows(FACTS, Sample("discovery")).values()) == {"discovery"}
    # Means and donors come from all that counts.
    assert len(made.pool(FACTS)) == len(selection.rows) == 10 * 4 * 2 * 3


def test_more_of_each_relation_are_swept_where_more_are_asked_for(tmp_path, corpora, made):
    """Smaller samples grow with it, the gate does not; addresses tell them apart."""
    wide = bench(tmp_path / "store", corpora, per_relation=8)
    assert len(wide.rows(FACTS)) == 10 * 8 and set(made.rows(FACTS)) < set(wide.rows(FACTS))
    assert len(wide.rows(FACTS, ONE_EACH)) == 10 * 2
    assert wide.sampling.per_cluster(FACTS, Sample(per_cluster=2)) == 4
    assert wide.config(FACTS, "zero").name != made.config(FACTS, "zero").name
    assert wide.config(FACTS, "null", made.gate.batteries(FACTS)[0].sample).name == (
        made.config(FACTS, "null", made.gate.batteries(FACTS)[0].sample).name
    )  # the gate asks what it asks


def test_the_selection_is_part_of_the_address(made):
    assert made.config(FACTS, "zero").selection == made.gate.selection(FACTS).token
    assert made.config(FACTS, "baseline", UNHOOKED).selection is None
    assert made.config(FACTS, "baseline", Sample(among="counting")).selection == KNOWN


def test_the_unfiltered_estimate_is_of_all_facts_of_counting_families(made):
    effects = Findings(made).unfiltered(FACTS, ((0, 0),))
    assert set(effects.table["split"]) == {"confirmation"}
    assert set(effects.table["template_id"].str.split("/").str[0]) == {KNOWN}


def test_a_condition_that_fails_is_never_swept(tmp_path):
    own = put_crossed(tmp_path / "corpora", crossed(known=(), unknown="abcd"))
    made = bench(tmp_path / "store", own)
    assert blocks(made.gate.validity(FACTS))
    assert made.gate.families(FACTS) == ()
    assert made.gate.reason_blocked(FACTS) == made.gate.validity(FACTS).reason
    assert made.rows(FACTS) == {} and made.gate.selection(FACTS).rows == frozenset()
    assert made.gate.selection(FACTS).share == 0.0
    assert runs(tmp_path / "store") == ["baseline"]  # null prompts decide nothing
    assert len(made.gate.counting(FACTS).clean) == len(made.gate.unhooked(FACTS).clean)
    assert runs(tmp_path / "store") == ["baseline", "null"]


def test_the_validity_of_a_condition_needs_no_sweep(tmp_path):
    own = put_crossed(tmp_path / "corpora", crossed())
    made = bench(tmp_path / "store", own)
    assert not blocks(made.gate.judged(FACTS))
    made.gate.counting(FACTS)
    assert runs(tmp_path / "store") == ["baseline", "null"]
    # Nor does what is known: one more battery of unhooked prompts.
    assert made.gate.reason_blocked(FACTS) is None
    assert runs(tmp_path / "store") == ["baseline", "baseline", "null"]


def test_too_few_known_relations_block_the_condition(tmp_path):
    rows = [row for row in crossed() if row.cluster_id in ("capital", "color", "organ", "sum")]
    made = bench(tmp_path / "store", put_crossed(tmp_path / "corpora", rows))
    assert not blocks(made.gate.validity(FACTS))
    reason = made.gate.reason_blocked(FACTS)
    assert "too few relations" in reason and "2 of discovery" in reason
    assert "zero" not in runs(tmp_path / "store")


def test_a_corpus_without_families_is_asked_as_a_whole(tmp_path):
    made = bench(tmp_path / "store", put_corpora(tmp_path / "corpora"))
    assert [each.name for each in made.gate.batteries(FACTS)] == ["baseline", "corrupt", "null"]
    assert made.gate.selection(FACTS) is None and made.config(FACTS, "zero").selection is None
    assert made.rows(FACTS) == made.rows(FACTS, UNHOOKED)
    assert made.sampling.per_cluster(FACTS, EVERYTHING) == 0
    assert set(made.gate.validities(FACTS)) == {""} and made.gate.reason_blocked(FACTS) is None
    assert runs(tmp_path / "store") == ["baseline", "corrupt"]  # null prompts decide nothing


def test_the_published_protocol_has_no_gate(tmp_path, corpora):
    made = bench(tmp_path / "store", corpora, protocol="published")
    assert made.gate.validity(FACTS) is None and made.gate.selection(FACTS) is None
    assert made.gate.reason_blocked(FACTS) is None
    assert not (tmp_path / "store").exists() or runs(tmp_path / "store") == []
    assert not blocks(made.gate.judged(FACTS))
