"""Claims of the literature pack on models that are made for them: what is there is found.

Run: pytest tests/test_literature_models.py
"""

from pathlib import Path

import pytest

from claims.literature import test_forming as forming
from claims.literature import test_successors as successors
from tests import successor_head
from tests.induction_circuit import INDUCTION_HEAD, SINK_HEAD, save_induction_circuit
from tinyablation.analysis.attention_course import attention_course
from tinyablation.analysis.findings import Findings
from tinyablation.heads import Head, head_name
from tinyablation.measurement.bench import Bench
from tinyablation.measurement.setup import Setup
from tinyablation.models.registry import ModelEntry
from tinyablation.runs.store import RunStore
from tinyablation.verdicts.listener import hear

pytestmark = pytest.mark.slow


def findings(folder: Path, steps: tuple[int, ...] = ()) -> Findings:
    """Of the model in a folder, or of that of the last step in it, without a corpus."""
    there = [{"step": step, "source": folder / f"step{step}"} for step in steps]
    plain = {"id": "made", "title": "Made", "family": "gpt2", "variant": "plain", "bos": True}
    source = there[-1]["source"] if there else folder
    entry = ModelEntry.model_validate({**plain, "source": source, "checkpoints": there})
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


BOTH = {INDUCTION_HEAD, SINK_HEAD}


@pytest.mark.parametrize(
    ("by_step", "rises", "order"),
    [
        # What is there at each step, of a head that inducts and one that is a sink.
        ([{}, {INDUCTION_HEAD}, BOTH], "supported", "supported"),
        ([{}, {SINK_HEAD}, BOTH], "supported", "refuted"),
        ([{}, BOTH], "supported", "inconclusive"),
        ([BOTH, BOTH], "refuted", "inconclusive"),
        ([{}, {}], "refuted", "blocked"),
    ],
)
def test_a_course_says_when_heads_came(by_step: list[set[Head]], rises, order, tmp_path):
    steps = tuple(range(len(by_step)))
    for step, there in zip(steps, by_step, strict=True):
        sizes = {"n_tokens": 80, "n_positions": 64}
        save_induction_circuit(tmp_path / f"step{step}", **sizes, without=BOTH - {*there})
    course = attention_course(findings(tmp_path, steps).bench)
    rise = hear(forming.test_induction_forms_during_training, attention_course=course).verdict
    assert rise.status == rises, rise.reason
    first = hear(forming.test_induction_forms_before_sinks, attention_course=course).verdict
    assert first.status == order, first.reason


def test_induction_does_not_form_from_one_random_model_to_the_next(tiny_folders, tmp_path):
    """Two models of one shape, which differ by their weights alone."""
    for step in range(2):
        save_noise(tiny_folders["gpt2"], tmp_path / f"step{step}", step)
    course = attention_course(findings(tmp_path, (0, 1)).bench)
    rise = hear(forming.test_induction_forms_during_training, attention_course=course).verdict
    assert rise.status == "refuted", rise.reason
    order = hear(forming.test_induction_forms_before_sinks, attention_course=course).verdict
    assert order.status == "blocked", order.reason


def save_noise(source: Path, folder: Path, seed: int) -> None:
    """The model of a folder with other random weights."""
    import torch
    import transformers as hf

    model = hf.AutoModelForCausalLM.from_pretrained(source)
    torch.manual_seed(seed)
    with torch.no_grad():
        for matrix in (each for each in model.parameters() if each.ndim > 1):
            matrix.copy_(0.25 * torch.randn_like(matrix))
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
