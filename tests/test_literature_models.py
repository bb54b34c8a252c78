"""Claims of the literature pack on models that are made for them: what is there is found.

Run: pytest tests/test_literature_models.py
"""

from pathlib import Path

import pytest

from claims.literature import test_successors as successors
from tests import successor_head
from tinyablation.analysis.findings import Findings
from tinyablation.heads import head_name
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import ModelEntry
from tinyablation.runs.store import RunStore
from tinyablation.verdicts.listener import hear

pytestmark = pytest.mark.slow


def findings(folder: Path, **fields) -> Findings:
    """Of the model in a folder, without a corpus."""
    plain = {"id": "made", "title": "Made by hand", "source": folder, "family": "gpt2"}
    entry = ModelEntry.model_validate({**plain, "variant": "plain", "bos": True, **fields})
    setup = Setup(entry=entry, corpora=folder / "none")
    return Findings(Bench(setup, RunStore(folder / "runs"), threads=1))


@pytest.mark.parametrize(("steps", "status"), [(1, "supported"), (-1, "refuted"), (0, "refuted")])
def test_a_head_that_writes_the_next_word_is_a_successor_head(steps, status, tmp_path):
    """steps: where it writes to, on the circle of all words: on, back, or the word itself."""
    successor_head.save_successor_head(tmp_path, steps)
    scores = findings(tmp_path).successors()
    heard = hear(successors.test_some_head_writes_the_successor, successor_scores=scores)
    assert heard.verdict.status == status, heard.verdict.reason
    if steps == 1:
        # What follows the last of a cycle stands elsewhere on the circle.
        assert heard.given["subject"] == head_name(successor_head.HEAD)
        assert scores.score(successor_head.HEAD).estimate > 0.9
    else:
        assert scores.score(successor_head.HEAD).estimate < 0.05
