"""Run: pytest tests/api/test_written.py"""

import numpy as np
import pytest

from tinyablation.api.errors import ApiError
from tinyablation.api.written import Written
from tinyablation.engine.head_outputs import head_outputs
from tinyablation.engine.prompt_checks import EngineError
from tinyablation.heads import Head


def test_it_is_what_an_ov_report_says(model, tuples):
    found = model.ov(tuples, "L0H7", top=5)
    table = found.table
    assert list(table["end"].value_counts()) == [5, 5]
    assert list(table["rank"]) == [1, 2, 3, 4, 5] * 2
    assert table[table["end"] == "top"]["logit"].is_monotonic_decreasing
    assert table[table["end"] == "bottom"]["logit"].is_monotonic_increasing
    study = found.study
    vectors = head_outputs(study.bench.engine, study.bench.prompts(study.condition))
    assert found.norm == pytest.approx(float(np.linalg.norm(vectors[0, 7].numpy())))
    assert -1 <= found.copying <= 1
    assert model.ov(tuples, "L1H2").norm != found.norm


def test_wrong_calls_are_said_in_one_line(model, tuples):
    with pytest.raises(ApiError, match="there is no head L7H0"):
        model.ov(tuples, "L7H0")
    with pytest.raises(EngineError, match="top_k is 0"):
        model.ov(tuples, "L0H0", top=0)


def test_tokens_are_escaped():
    token = {"token": "<script>", "token_id": 1, "logit": 1.0}
    document = {"tokens": {"top": [token], "bottom": [token]}, "vector_norm": 1.0}

    class Study:
        title = "<b>"

    shown = Written(Study(), Head(0, 0), document)._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "<b>" not in shown
