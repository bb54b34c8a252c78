"""The model registry: what it reads, and how it says no.

Run: pytest tests/test_registry.py
"""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tinyablation.registry import RegistryError, load_registry

GOOD = """
[[model]]
id = "tiny-gpt2"
title = "Tiny GPT-2"
source = "organisms/tiny-gpt2"
family = "gpt2"
variant = "hedged"
tokenizer = "tiny"
bos = true
twin = "tiny-gpt2-plain"

[[model]]
id = "tiny-gpt2-plain"
title = "Tiny GPT-2, plain"
source = "organisms/tiny-gpt2-plain"
family = "gpt2"
variant = "plain"
tokenizer = "tiny"
bos = true
dtype = "float32"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_entries_are_in_file_order_and_paths_are_next_to_the_file(
    tmp_path: Path,
) -> None:
    registry = load_registry(written(tmp_path, GOOD))
    assert registry.ids == ("tiny-gpt2", "tiny-gpt2-plain") and len(registry) == 2
    entry = registry["tiny-gpt2"]
    assert entry.source == (tmp_path / "organisms/tiny-gpt2").resolve()
    assert (entry.dtype, entry.twin, entry.bos) == ("float32", "tiny-gpt2-plain", True)
    assert "tiny-gpt2" in registry and "tiny" not in registry
    with pytest.raises(ValidationError):
        entry.bos = False  # type: ignore[misc]


def test_an_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    registry = load_registry(written(tmp_path, GOOD))
    with pytest.raises(RegistryError, match="no model 'tiny-gpt'; did you mean 'tiny-gpt2'"):
        registry["tiny-gpt"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "bos = true\ntwin",
            "boss = true\ntwin",
            r"toml:2: model 'tiny-gpt2': unknown field 'boss'.*'bos'",
        ),
        (
            'dtype = "float32"',
            'dtype = "int3"',
            r"toml:12: model 'tiny-gpt2-plain': field 'dtype'",
        ),
        (
            'family = "gpt2"\nvariant = "hedged"',
            'variant = "hedged"',
            "'family'.*required",
        ),
        ('id = "tiny-gpt2-plain"', 'id = "tiny-gpt2"', "'tiny-gpt2' is listed twice"),
        ('id = "tiny-gpt2-plain"', 'id = "../x"', "field 'id'"),
        (
            'twin = "tiny-gpt2-plain"',
            'twin = "tiny-gpt3"',
            "twin 'tiny-gpt3' is no other model",
        ),
        (
            'twin = "tiny-gpt2-plain"',
            'twin = "tiny-gpt2"',
            "twin 'tiny-gpt2' is no other model",
        ),
        ("[[model]]", "[[models]]", "unknown key 'models'; did you mean 'model'"),
        ("[[model]]", "[[model]", "not valid TOML.*line 2"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RegistryError, match=message):
        load_registry(written(tmp_path, GOOD.replace(old, new)))


@pytest.mark.parametrize("text", ["", "model = 3", "model = [3]"])
def test_a_file_without_models_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RegistryError, match=r"\[\[model\]\]"):
        load_registry(written(tmp_path, text))


COURSE = """checkpoints = [
    { step = 0, source = "organisms/tiny-gpt2-plain" },
    { step = 30, source = "organisms/step0030" },
    { step = 60, source = "organisms/tiny-gpt2" },
]
"""


def with_course(course: str) -> str:
    return GOOD.replace('twin = "tiny-gpt2-plain"\n', f'twin = "tiny-gpt2-plain"\n{course}', 1)


def test_checkpoints_are_read_in_order_with_their_folders(tmp_path: Path) -> None:
    registry = load_registry(written(tmp_path, with_course(COURSE)))
    entry = registry["tiny-gpt2"]
    assert [checkpoint.step for checkpoint in entry.checkpoints] == [0, 30, 60]
    assert entry.checkpoints[1].source == (tmp_path / "organisms/step0030").resolve()
    assert entry.checkpoints[-1].source == entry.source
    assert registry["tiny-gpt2-plain"].checkpoints == ()


def test_a_model_at_a_checkpoint_is_an_entry_of_its_own(tmp_path: Path) -> None:
    entry = load_registry(written(tmp_path, with_course(COURSE)))["tiny-gpt2"]
    then = entry.at(entry.checkpoints[1])
    assert then.id == "tiny-gpt2-step0030"
    assert then.source == entry.checkpoints[1].source
    assert (then.checkpoints, then.twin) == ((), None)
    same = {"id", "title", "source", "twin", "checkpoints"}
    assert then.model_dump(exclude=same) == entry.model_dump(exclude=same)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("step = 30", "step = 70", "'checkpoints': step 60 stands after step 70; list them"),
        ("step = 30", "step = 60", "step 60 stands after step 60"),
        ("step = 30", "step = -1", "field 'checkpoints.1.step'"),
        ("step = 30", "step = 30.0", "field 'checkpoints.1.step'"),
        ("step = 30, ", "", "field 'checkpoints.1.step'.*required"),
        ('step = 0, source = "organisms/tiny-gpt2-plain"', "step = 0", "'checkpoints.0.source'"),
        ("step = 30", "stpe = 30", "checkpoint 2: unknown field 'stpe'; did you mean 'step'"),
        ("organisms/step0030", "organisms/tiny-gpt2", "steps 30 and 60 name the same weights"),
        (COURSE, "checkpoints = [{ step = 0, source = 'x' }]\n", "one checkpoint is no course"),
        (COURSE, "checkpoints = [1, 2]\n", "field 'checkpoints.0'"),
        (COURSE, "checkpoints = 'x'\n", "field 'checkpoints'"),
    ],
)
def test_a_wrong_course_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in COURSE
    with pytest.raises(RegistryError, match=rf"toml:2: model 'tiny-gpt2'.*{message}"):
        load_registry(written(tmp_path, with_course(COURSE.replace(old, new))))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nowhere.toml: cannot be read"):
        load_registry(tmp_path / "nowhere.toml")


def test_collection_imports_nothing_heavy() -> None:
    """Registry, loading and interventions are imported while tests are collected."""
    code = (
        "import sys, tinyablation.registry, tinyablation.loading, tinyablation.interventions;"
        "print({'torch', 'transformers', 'pandas', 'scipy', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
