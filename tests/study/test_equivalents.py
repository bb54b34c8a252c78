"""What a config comes to here: the family of its claims, and commands that exist.

Run: pytest tests/study/test_equivalents.py
"""

import shlex

import pytest

from tests.study_files import CONDITIONS, HEADS, PAIRS, REVERSE, TRIPLET, put_config
from tinyablation.__main__ import parser
from tinyablation.study.config import read_config
from tinyablation.study.equivalents import FAMILIES, condition_of, equivalents


def commands(path) -> list[list[str]]:
    lines = equivalents(read_config(path))
    return [shlex.split(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(
    ("battery", "family", "measured"),
    [
        (HEADS, "H1", ["--battery", "zero"]),
        (PAIRS, "H5", ["--battery", "pairs", "--layer", "0"]),
        (
            {"type": "heads_pair_zero", "pairs": [{"layer": 2, "h1": 0, "h2": 1}]},
            "H5",
            ["--battery", "pairs", "--layer", "2"],
        ),
        (TRIPLET, "H5", ["--battery", "sets", "--heads", "0:7", "0:0", "0:5"]),
        (REVERSE, "H6", ["--battery", "patch-reverse"]),
        (
            {**REVERSE, "patch_direction": "clean->corrupt"},
            "H6",
            ["--battery", "patch-forward"],
        ),
    ],
)
def test_a_battery_has_its_family_and_its_command(tmp_path, battery, family, measured):
    path = put_config(tmp_path, "mine", battery)
    claims, measure, run = commands(path)
    assert claims[:6] == ["pytest", "claims", "--model", "tiny-gpt2", "--claim", family]
    assert claims[6:] == ["-k", "facts"]
    assert measure[-len(measured) :] == measured
    assert run == ["python", "-m", "tinyablation", "run", str(path)]
    # The command line knows both, with their options.
    assert parser().parse_args(measure[3:]).battery == measured[1]
    assert parser().parse_args(run[3:]).config == path


def test_every_battery_type_has_a_family():
    assert set(FAMILIES) == {each["type"] for each in (HEADS, PAIRS, TRIPLET, REVERSE)}


def test_conditions_are_those_of_this_project_and_their_matrices_are_combined(tmp_path):
    path = put_config(tmp_path, "h1", HEADS, conditions=CONDITIONS)
    assert [condition_of(request) for request in read_config(path).requests] == [
        *("facts", "negation", "counterfactual", "logic")
    ]
    claims, *measures, combined, _ = commands(path)
    assert "-k" not in claims  # all four
    assert [each[each.index("--condition") + 1] for each in measures] == [
        *("facts", "negation", "counterfactual", "logic")
    ]
    assert combined[3:] == ["rebuild-cross-condition", "RUN", "RUN", "RUN", "RUN"]


def test_data_that_no_condition_is_like_is_only_run(tmp_path):
    path = put_config(tmp_path, "h1", HEADS, dataset={"id": "corporate", "split": "train"})
    lines = equivalents(read_config(path))
    assert "# corporate: no condition of this project; only `run` measures it" in lines
    assert len(commands(path)) == 2


def test_a_checkpoint_is_named_as_one(tmp_path):
    model = {"family": "pythia", "name": "pythia-160m", "revision": "step1000", "dtype": "float16"}
    lines = equivalents(read_config(put_config(tmp_path, "h1", HEADS, model=model, device="mps")))
    said = "\n".join(lines)
    assert "pytest claims --model pythia-160m --claim H1 -k facts --revision step1000" in said
    assert "step1000 is a checkpoint: claims D" in said
    assert "--device mps --dtype float16" in said
    small = put_config(tmp_path, "h1", HEADS, model={"name": "gpt2-small"})
    assert "--model gpt2 " in "\n".join(equivalents(read_config(small)))
