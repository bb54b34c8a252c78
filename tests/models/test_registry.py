"""The model registry: what it reads, and how it says no.

Run: pytest tests/models/test_registry.py
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tinyablation.models.registry import ModelEntry, Registry, RegistryError, load_registry
from tinyablation.shipped import INSTALL_EXTRA, MODELS, shipped

ROOT = Path(__file__).parents[2]

GOOD = """
[[model]]
id = "tiny-gpt2"
title = "Tiny GPT-2"
source = "organisms/tiny-gpt2"
family = "gpt2"
variant = "hedged"
bos = true
twin = "tiny-gpt2-plain"

[[model]]
id = "tiny-gpt2-plain"
title = "Tiny GPT-2, plain"
source = "organisms/tiny-gpt2-plain"
family = "gpt2"
variant = "plain"
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


def test_a_model_of_the_extra_is_told_to_come_with_it(tmp_path: Path) -> None:
    """Where the library's own file lists fewer; a project's own file may list whatever it likes."""
    entries = load_registry(written(tmp_path, GOOD))
    in_wheel = Registry(shipped(MODELS), entries)
    said = f"no model 'tiny-neox'; it comes with {INSTALL_EXTRA}"
    for asked in (in_wheel.named, in_wheel.__getitem__):
        with pytest.raises(RegistryError, match=re.escape(said)):
            asked("tiny-neox")
    assert in_wheel.named("neox").is_hub and entries.named("tiny-neox").is_hub


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
            r"toml:11: model 'tiny-gpt2-plain': field 'dtype'",
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
            "twin 'tiny-gpt3' is not another model",
        ),
        (
            'twin = "tiny-gpt2-plain"',
            'twin = "tiny-gpt2"',
            "twin 'tiny-gpt2' is not another model",
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
        ("step = 30", "step = 70", "'checkpoints': step 60 comes after step 70; list them"),
        ("step = 30", "step = 60", "step 60 comes after step 60"),
        ("step = 30", "step = -1", "field 'checkpoints.1.step'"),
        ("step = 30", "step = 30.0", "field 'checkpoints.1.step'"),
        ("step = 30, ", "", "field 'checkpoints.1.step'.*required"),
        ('step = 0, source = "organisms/tiny-gpt2-plain"', "step = 0", "'checkpoints.0': give"),
        ("step = 30", "stpe = 30", "checkpoint 2: unknown field 'stpe'; did you mean 'step'"),
        ("organisms/step0030", "organisms/tiny-gpt2", "steps 30 and 60 name the same weights"),
        (
            COURSE,
            "checkpoints = [{ step = 0, source = 'x' }]\n",
            "one checkpoint is not a trajectory",
        ),
        (COURSE, "checkpoints = [1, 2]\n", "field 'checkpoints.0'"),
        (COURSE, "checkpoints = 'x'\n", "field 'checkpoints'"),
    ],
)
def test_a_wrong_course_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in COURSE
    with pytest.raises(RegistryError, match=rf"toml:2: model 'tiny-gpt2'.*{message}"):
        load_registry(written(tmp_path, with_course(COURSE.replace(old, new))))


HUB = """
[[model]]
id = "pythia"
title = "Pythia"
repo = "EleutherAI/pythia-160m"
family = "neox"
variant = "natural"
bos = false
parameters = 162322944
checkpoints = [{ step = 1000, revision = "step1000" }, { step = 2000, revision = "step2000" }]
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Registry:
    """Two folders and a model of the hub."""
    return load_registry(written(tmp_path, GOOD + HUB))


def test_a_model_of_the_hub_has_a_repository_and_revisions(mixed: Registry) -> None:
    entry = mixed["pythia"]
    assert entry.is_hub and entry.source is None and entry.place == "EleutherAI/pythia-160m"
    assert (mixed.local_ids, mixed.hub_ids) == (("tiny-gpt2", "tiny-gpt2-plain"), ("pythia",))
    then = entry.at(entry.checkpoints[0])
    assert (then.id, then.place) == ("pythia-step1000", "EleutherAI/pythia-160m@step1000")
    assert then.checkpoints == () and then.parameters == entry.parameters


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('repo = "E', 'source = "x"\nrepo = "E', "give either a source .* a repo .* or a package"),
        ('repo = "EleutherAI/pythia-160m"\n', "", "give either a source .* a repo .* or a package"),
        ('repo = "EleutherAI/pythia-160m"', 'source = "x"', "checkpoints need a repo"),
        ('repo = "EleutherAI/', 'repo = "../', "field 'repo'"),
        ('repo = "EleutherAI/', 'repo = "https://hub/', "field 'repo'"),
        ("bos = false", 'bos = false\nrevision = "../x"', "field 'revision'"),
        ("bos = false", 'bos = false\nrevision = ""', "field 'revision'"),
        ("162322944", "0", "field 'parameters'"),
        ('"step1000"', '"step1000", source = "x"', "field 'checkpoints.0': give either"),
        ('"step2000"', '"step1000"', "steps 1000 and 2000 name the same weights"),
    ],
)
def test_a_wrong_place_on_the_hub_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in HUB
    with pytest.raises(RegistryError, match=rf"toml:2: model 'pythia'.*{message}"):
        load_registry(written(tmp_path, HUB.replace(old, new)))


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("bos = true", 'bos = true\nrevision = "main"', 1)
    with pytest.raises(RegistryError, match="a revision needs a repo"):
        load_registry(written(tmp_path, text))


def test_users_name_models_by_id_folder_or_repository(mixed: Registry, tmp_path: Path) -> None:
    assert mixed.named("tiny-gpt2") is mixed["tiny-gpt2"]
    assert mixed.named("EleutherAI/pythia-160m") is mixed["pythia"]
    known = tmp_path / "organisms" / "tiny-gpt2"
    known.mkdir(parents=True)
    assert mixed.named(str(known)) == mixed["tiny-gpt2"]
    folder = tmp_path / "My Model (v2)"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    own = mixed.named(str(folder))
    assert (own.id, own.source, own.family) == ("my-model-v2", folder, "neox")
    assert (own.variant, own.bos, own.dtype) == ("natural", None, "float32")
    unlisted = mixed.named("someone/Some_Model-1.5")
    assert (unlisted.id, unlisted.repo) == ("some_model-1.5", "someone/Some_Model-1.5")
    # An id that is taken gets digits of a hash: of the place, where no files are at hand.
    digits = hashlib.sha256(b"someone/tiny-gpt2").hexdigest()[:6]
    alike = mixed.named("someone/tiny-gpt2")
    assert (alike.id, alike.title) == (f"tiny-gpt2-{digits}", f"someone/tiny-gpt2 ({digits})")
    more = mixed.with_entries([own, unlisted])
    assert more.ids == (*mixed.ids, "my-model-v2", "some_model-1.5") and mixed.ids != more.ids


SHA = "b1" * 32
PACKAGE = f"""
[[model]]
id = "small"
title = "Small"
package = {{ name = "a-package", version = "1.0.2", file = "a/m.gguf", sha256 = "{SHA}", size = 9 }}
family = "llama"
variant = "natural"
"""


def test_a_model_of_a_package_is_used_where_it_is_named_only(tmp_path: Path) -> None:
    registry = load_registry(written(tmp_path, GOOD + HUB + PACKAGE))
    entry = registry["small"]
    assert entry.is_package and entry.is_named_only and not entry.is_hub
    assert entry.place == "PyPI a-package 1.0.2: a/m.gguf"
    assert registry.named_only_ids == ("pythia", "small") and registry.hub_ids == ("pythia",)
    assert registry.local_ids == ("tiny-gpt2", "tiny-gpt2-plain")
    # Entries travel to the workers of an executor as JSON.
    assert ModelEntry.model_validate_json(entry.model_dump_json()) == entry
    with pytest.raises(RegistryError, match="small: is a package, which has no revision 'v1'"):
        registry.named("small", "v1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"a-package"', '"A_Package"', "field 'package.name'"),
        ('"a-package"', '"--index-url"', "field 'package.name'"),
        ('"1.0.2"', '"1.0.*"', "field 'package.version'"),
        ('"1.0.2"', '"1 --pre"', "field 'package.version'"),
        ('"a/m.gguf"', '"../m.gguf"', "field 'package.file'"),
        ('"a/m.gguf"', '"/m.gguf"', "field 'package.file'"),
        ('"a/m.gguf"', '"a/m.bin"', "field 'package.file'"),
        (SHA, SHA[:-1], "field 'package.sha256'"),
        ("size = 9", "size = 0", "field 'package.size'"),
        (", size = 9", "", "field 'package.size'.*required"),
        ("size = 9", "sise = 9", "package: unknown field 'sise'; did you mean 'size'"),
        ('family = "llama"', 'family = "llama"\nrepo = "a/b"', "give either a source"),
        ('family = "llama"', 'family = "llama"\nrevision = "v"', "a revision needs a repo"),
    ],
)
def test_a_wrong_package_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PACKAGE
    with pytest.raises(RegistryError, match=rf"toml:2: model 'small'.*{message}"):
        load_registry(written(tmp_path, PACKAGE.replace(old, new)))


def test_a_name_that_is_given_makes_title_and_id(mixed: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    entry = mixed.named(str(folder), title="My Model (v2)")
    assert (entry.id, entry.title, entry.name_again) == ("my-model-v2", *["My Model (v2)"] * 2)
    long = mixed.named(str(folder), title="x" * 80)
    assert (long.id, long.name_again) == ("x" * 60, "x" * 80)
    # A name never makes it a listed model; and what that gives can be asked for again.
    taken = mixed.named(str(folder), title="tiny-gpt2")
    assert taken.id.startswith("tiny-gpt2-") and taken.source == folder
    assert mixed.named(str(folder), title=taken.name_again).id == taken.id
    assert mixed.named("pythia", "v1", "Mine").place == "EleutherAI/pythia-160m@v1"


def test_models_of_one_name_are_told_apart_by_their_weights(
    mixed: Registry, tmp_path: Path
) -> None:
    found = []
    for where, weights in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        folder = tmp_path / where / "mine"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(weights)
        found.append(mixed.named(str(folder)))
    assert {entry.id for entry in found} == {"mine"}
    one, two, again = (entry.told_apart() for entry in found)
    assert one.id == f"mine-{hashlib.sha256(b'one').hexdigest()[:6]}" == again.id != two.id
    assert one.title == f"mine ({one.id[-6:]})" and one.name_again == one.title


def test_a_revision_makes_another_model(mixed: Registry) -> None:
    then = mixed.named("pythia", "refs/pr/3")
    assert (then.id, then.place) == ("pythia-refs-pr-3", "EleutherAI/pythia-160m@refs/pr/3")
    assert mixed.named("someone/m", "v1.0").id == "m-v1.0"
    with pytest.raises(RegistryError, match="tiny-gpt2: is a folder, which has no revision"):
        mixed.named("tiny-gpt2", "main")
    with pytest.raises(RegistryError, match=r"revision '../x'"):
        mixed.named("pythia", "../x")


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/where", "~/no-such-folder-here", "~no-such-user/m"]
)
def test_a_folder_that_is_not_there_is_said_at_once(mixed: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="no such folder; name a folder, a hub id or one of"):
        mixed.named(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "a//b", "<img src=x>", "tiny gpt2"])
def test_what_is_no_name_is_refused(mixed: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="neither a model id, a folder nor a repository"):
        mixed.named(name)


def test_the_projects_own_registry_has_the_models_of_the_study() -> None:
    registry = load_registry(ROOT / "fixtures" / "models.toml")
    studied = (
        *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"),
        *("mistral-7b", "llama-2-7b", "llama-3-8b", "open-llama-7b"),
        *("pythia-160m", "pythia-410m", "pythia-1b", "pythia-1.4b", "pythia-2.8b"),
    )
    assert set(studied) <= set(registry.hub_ids)  # models may be added
    for entry in (registry[identifier] for identifier in studied):
        assert entry.bos == (entry.family != "neox") and entry.parameters and entry.repo
        assert entry.variant == "natural" and bool(entry.checkpoints) == (entry.family == "neox")
    small = registry["smollm2-135m"]
    assert set(registry.named_only_ids) == {"smollm2-135m", *registry.hub_ids}
    assert small.is_package and small.bos and small.parameters == 134515008
    assert [i for i in studied if registry[i].gated] == ["llama-2-7b", "llama-3-8b"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nowhere.toml: cannot be read"):
        load_registry(tmp_path / "nowhere.toml")


def test_collection_imports_nothing_heavy() -> None:
    """Registry, loading and interventions are imported while tests are collected."""
    code = (
        "import sys, tinyablation.models.registry, tinyablation.models.loading;"
        "import tinyablation.interventions.interventions;"
        "print({'torch', 'transformers', 'pandas', 'scipy', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_folder_of_other_bytes_than_utf8_has_a_name(mixed: Registry, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    entry = mixed.named(str(folder))
    assert entry.title == r"caf\udce9" and entry.source == folder
