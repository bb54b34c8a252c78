"""Sessions merged: complete, in any order the same, nothing silently overwritten.

Run: pytest tests/sessions/test_merging.py
"""

import itertools

import pytest

from tests.fake_sessions import fake_session, opened
from tests.sessions.test_drift import cell, session
from tinyablation.records.records import RecordFile
from tinyablation.report.page import render
from tinyablation.sessions.drift import compare_sessions
from tinyablation.sessions.merging import MergeError, agree, merge
from tinyablation.sessions.protocol_comparison import cell_key, disputed

EARLY, LATE = "2025-03-01T01:00:00+00:00", "2025-03-02T01:00:00+00:00"


def shards(n):
    """One session as n machines would have it, each with every nth cell."""
    file = fake_session()
    return [
        file.model_copy(
            update={
                "session": file.session.model_copy(
                    update={
                        "platform": f"machine {k}",
                        "started": f"2025-03-0{k + 1}T01:00:00+00:00",
                    }
                ),
                "records": file.records[k::n],
            }
        )
        for k in range(n)
    ]


def test_shards_make_the_whole():
    parts = shards(3)
    merged = merge(parts)
    whole = {cell_key(record): record for record in fake_session().records}
    assert {cell_key(record) for record in merged.records} == set(whole)
    assert disputed(merged) == set()
    own = {"source": None, "p_adjusted": None}
    for record in merged.records:
        assert record.model_copy(update=own) == whole[cell_key(record)].model_copy(update=own)
    assert merged.session.platform == "machine 0; machine 1; machine 2"
    assert [source.kept for source in merged.session.sources] == [len(p.records) for p in parts]
    assert [model.id for model in merged.session.models] == [
        model.id for model in fake_session().session.models
    ]


@pytest.mark.slow
def test_the_order_of_sessions_does_not_matter():
    parts = [*shards(2), session(cell(), started=LATE), session(cell(effect=2.0), started=EARLY)]
    merged = [merge(order) for order in itertools.permutations(parts)]
    assert all(file == merged[0] for file in merged)
    assert len({render(file) for file in merged[:2]}) == 1


def test_one_session_given_twice_is_itself():
    file = fake_session()
    assert merge([file]) == file == merge([file, RecordFile.model_validate(file.model_dump())])


def test_what_two_have_alike_is_taken_once_from_the_first():
    merged = merge(
        [
            session(cell(), started=LATE, platform="B"),
            session(cell(effect=1.00001, reason="other words"), started=EARLY, platform="A"),
        ]
    )
    (record,) = merged.records
    assert (record.source, record.reason) == ("session 1", "other words")
    assert [(s.platform, s.records, s.kept) for s in merged.session.sources] == [
        ("A", 1, 1),
        ("B", 1, 0),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "refuted"},
        {"effect": 1.2},
        {"high": 1.3},
        {"low": None},
        {"floor": 0.5},
        {"subject": "0:3"},
        {"unit": "nats"},
        {"prediction": "refuted"},
    ],
)
def test_what_they_disagree_on_is_kept_from_each(changes):
    merged = merge([session(cell(), started=EARLY), session(cell(**changes), started=LATE)])
    assert [record.source for record in merged.records] == ["session 1", "session 2"]
    assert disputed(merged) == {cell_key(cell())}
    assert not agree(*merged.records)
    html = opened(render(merged))
    assert "1 test case in conflict" in html and "Merged sessions disagree on 1 test case." in html
    assert html.count("<details id=") == 2
    assert html.count("sessions disagree</b>: session ") == 2


def test_a_third_that_agrees_with_one_is_no_third_opinion():
    files = [
        session(cell(effect=effect), started=f"2025-03-0{day}T01:00:00+00:00")
        for day, effect in ((1, 1.0), (2, 1.2), (3, 1.2))
    ]
    assert [record.source for record in merge(files).records] == ["session 1", "session 2"]


def test_merged_sessions_can_be_merged_again_and_compared():
    first = merge([session(cell("a")), session(cell("b"), started=LATE)])
    again = merge([first, session(cell("c"), started=LATE)])
    assert {record.model for record in again.records} == {"a", "b", "c"}
    assert {record.source for record in again.records} == {
        "session 1: session 1",
        "session 1: session 2",
        "session 2",
    }
    drift = compare_sessions(first, again)
    assert [record.model for record in drift.added] == ["c"] and not drift.gone


def test_the_ledger_is_of_all_cells_together():
    one, other = (
        session(cell(model, p_value=p), started=started)
        for model, p, started in (("a", 0.01, EARLY), ("b", 0.5, LATE))
    )
    merged = merge([one, other])
    assert merged.session.multiplicity.n == 2
    # By hand: .01 * 2 / 1 * (1 + 1/2); and .5 itself, as at that alpha a set of both gives 1/2 + 1
    assert [record.p_adjusted for record in merged.records] == pytest.approx([0.03, 0.5])


def test_other_weights_under_one_id_are_another_model():
    """No cell mixes two models, whatever sessions call them."""
    one = session(cell(), cell("other"), hashes={"gpt2": "a" * 64, "other": "c" * 64})
    two = session(cell(effect=2.0), hashes={"gpt2": "b" * 64}, started=LATE)
    merged = merge([one, two])
    assert {record.model for record in merged.records} == {"gpt2-aaaaaa", "gpt2-bbbbbb", "other"}
    assert disputed(merged) == set()
    found = {model.id: model for model in merged.session.models}
    assert set(found) == {"gpt2-aaaaaa", "gpt2-bbbbbb", "other"}
    assert found["gpt2-bbbbbb"].title.endswith("(bbbbbb)") and not found["other"].note
    assert (
        found["gpt2-aaaaaa"].note == f"Of the models called gpt2, the one with weights {'a' * 12}."
    )
    html = render(merged)
    assert "(aaaaaa)" in html and "(bbbbbb)" in html
    # Merged again with a session that knows one of them by the id alone.
    again = merge([merged, session(cell(effect=2.0), hashes={"gpt2": "b" * 64}, started=LATE)])
    assert {record.model for record in again.records} == {"gpt2-aaaaaa", "gpt2-bbbbbb", "other"}


def test_a_session_that_did_not_have_the_weights_speaks_of_the_same_model():
    without = session(cell("gpt2", "logic"), hashes={"gpt2": None}, started=LATE)
    (model,) = merge([session(cell()), without]).session.models
    assert (model.id, model.weight_hash) == ("gpt2", "a" * 64)


def test_noise_is_the_largest_that_any_saw():
    def noisy(repeat, runs, started):
        row = {"device": "cuda", "dtype": "bfloat16", "runs": runs, "repeat": repeat, "shape": 0.5}
        return session(cell(str(runs)), started=started, noise=[row])

    (row,) = merge([noisy(0.1, 3, EARLY), noisy(0.2, 4, LATE)]).session.noise
    assert (row.repeat, row.runs, row.reference) == (0.2, 7, None)


def test_an_incomplete_part_makes_an_incomplete_whole():
    parts = [session(cell("a")), session(cell("b"), started=LATE, complete=False)]
    assert merge(parts).session.complete is False


def test_what_cannot_be_merged_is_said():
    with pytest.raises(MergeError, match="nothing to merge"):
        merge([])
    with pytest.raises(MergeError, match="published protocol cannot be merged"):
        merge([session(cell()), session(cell(), protocol="published")])
