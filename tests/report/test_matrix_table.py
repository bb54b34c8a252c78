"""Which models have a column in the matrix. Run: pytest tests/report/test_matrix_table.py"""

from tests.fake_sessions import fake_session, one_record
from tinyablation.records.records import RecordFile, SessionModel
from tinyablation.report.matrix_table import matrix_of
from tinyablation.report.model_columns import columns_of


def matrix(models, records):
    described = [
        SessionModel(id=name, title=name.title(), family=family, variant=variant)
        for name, family, variant in models
    ]
    session = fake_session().session.model_copy(update={"models": described})
    file = RecordFile(session=session, records=records)
    return matrix_of(columns_of(file), file.records)


def names(found):
    return {group: [c.model.id for c in columns] for group, columns in found.groups.items()}


MODELS = [
    ("twin", "gpt2", "plain"),
    ("planted", "gpt2", "hedged"),
    ("other", "neox", "plain"),
    ("real", "gpt2", "natural"),
]


def test_pretrained_models_come_first_and_controls_of_a_family_stand_together():
    records = [one_record(model=name, verdict="refuted") for name, _, _ in MODELS]
    found = matrix(MODELS, records)
    assert names(found) == {
        "Pretrained": ["real"],
        "GPT-2": ["planted", "twin"],
        "GPT-NeoX": ["other"],
    }
    assert [c.badge for c in found.columns][:2] == ["pretrained", "positive control"]
    assert found.left_out == []


def test_models_of_which_nothing_was_measured_have_no_column_but_are_named():
    records = [
        one_record(model="real", verdict="refuted"),
        one_record(model="planted", verdict="blocked"),
    ]
    found = matrix(MODELS, records)
    assert names(found) == {"Pretrained": ["real"]}
    assert found.left_out == [
        "Planted (1 test case, all blocked)",
        "Twin (no test case)",
        "Other (no test case)",
    ]


def test_a_session_in_which_all_is_blocked_still_has_its_matrix():
    found = matrix(MODELS, [one_record(model="real", verdict="blocked")])
    assert names(found) == {"Pretrained": ["real"]}
