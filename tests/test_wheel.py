"""What `pip install tinyablation` gives: a wheel, alone beside its dependencies, and two files.

Run: pytest tests/test_wheel.py

A wheel is installed into an environment of its own, whose path has the packages of this one, but
no checkout: a line in a .pth file adds a folder, and does not read the .pth files in it, by which
an editable install would come along.
"""

import email
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import tinyablation
import tinyablation.shipped as places
from tests.checkouts import checkout
from tinyablation.models.registry import load_registry
from tinyablation.records.records import JUDGED
from tinyablation.shipped import (
    CORPORA,
    ERROR_RATES,
    INSTALL_EXTRA,
    MODELS,
    OF_EXTRA,
    here_or_shipped,
    shipped,
)

ROOT = Path(__file__).parent.parent
PARTS = (
    *("tinyablation", "claims", "fixtures", "README.md", "LICENSE", "setup.py", "MANIFEST.in"),
    "Makefile",
)
MINE = '''# tests/test_mine.py of a repository that has nothing else but pyproject.toml
import pytest

@pytest.mark.claim("LAB.1", models="tiny-gpt2", conditions="facts")
def test_head_seven_suppresses(sweep, judge):
    """Head L0H7 suppresses the right answer."""
    judge(sweep.suppresses("L0H7"))
'''
ASKED = '''
import pytest

@pytest.mark.claim("LAB.2", conditions="ioi")
def test_head_seven_suppresses(sweep, judge):
    """Head L0H7 suppresses the right answer."""
    judge(sweep.suppresses("L0H7"))
'''
OF_TWO = '''
import pytest

@pytest.mark.claim("LAB.3", models=["tiny-neox", "tiny-mistral-plain"], conditions="facts")
def test_head_one_suppresses(sweep, judge):
    """Head L0H1 suppresses the right answer."""
    judge(sweep.suppresses("L0H1"))
'''
MOST_IMPORTING_S = 0.050  # in a session without claims
MOST_S = 60  # of a processor, from an empty store: what a first claim may take


class Ran(NamedTuple):
    """code: its exit status; out: what it printed; cpu: seconds of processors it took."""

    code: int
    out: str
    cpu: float


def without_checkout() -> dict[str, str]:
    left_out = ("PYTEST_", "PYTHONPATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CI")
    return {name: text for name, text in os.environ.items() if not name.startswith(left_out)}


class Environment(NamedTuple):
    """An environment with the wheel."""

    folder: Path

    @property
    def packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def install(self, *words: str | Path) -> None:
        """pip install WORDS, without an index."""
        pip = [sys.executable, "-m", "pip", "--python", self.folder / "bin" / "python"]
        command = [*pip, "install", "-q", "--no-index", *words]
        subprocess.run(command, env=without_checkout(), check=True, timeout=300)

    def run(self, where: Path, *words: str, **more: str) -> Ran:
        """python WORDS in a folder, as if no checkout were near."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [self.folder / "bin" / "python", *words],
            cwd=where,
            env=without_checkout() | {"OMP_NUM_THREADS": "1"} | more,
            capture_output=True,
            text=True,
            timeout=900,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Ran(done.returncode, done.stdout + done.stderr, cpu)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes of a copy, with what is installed here: nothing is downloaded."""
    source = checkout(tmp_path_factory.mktemp("wheel") / "source", *PARTS, corpora=False)
    for name in ("knowledge", "tiny", "examples", "text"):
        (source / "corpora").mkdir(exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / "corpora" / name, source / "corpora" / name], check=True)
    here = f"BIN={Path(sys.executable).parent}"
    make = ["make", "--old-file=.venv/.ready", "dist", here]
    subprocess.run(make, cwd=source, check=True, timeout=300)
    return source / "build" / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("tinyablation-*.whl")
    return found


@pytest.fixture(scope="module")
def organisms(built: Path) -> Path:
    (found,) = built.glob("tinyablation_organisms-*.whl")
    return found


def environment(folder: Path, wheel: Path) -> Environment:
    venv.create(folder, with_pip=False, symlinks=True)
    found = Environment(folder)
    (found.packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    found.install("--no-deps", wheel)
    code = "import tinyablation, sys; print(tinyablation.__file__, *sys.path, sep='\\n')"
    where, *path = found.run(folder, "-c", code).out.split()
    assert where == str(found.packages / "tinyablation" / "__init__.py")
    others = [Path(entry, "tinyablation") for entry in path if entry != str(found.packages)]
    assert not any(other.exists() for other in others)
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture(scope="module")
def extended(wheel: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With the extra, as pip finds it by the library's metadata."""
    found = environment(tmp_path_factory.mktemp("extended"), wheel)
    assert INSTALL_EXTRA == "pip install 'tinyablation[organisms]'"
    found.install("--find-links", built, "tinyablation[organisms]")
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A repository of two files."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "lab"\nversion = "1"\n')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_mine.py").write_text(MINE)
    return tmp_path


def records(lab: Path) -> list[dict]:
    return json.loads((lab / "tinyablation-reports" / "records.json").read_text())["records"]


# --- where files lie, in a checkout -------------------------------------------------------------


def test_in_a_checkout_its_own_folders_are_used(tmp_path: Path) -> None:
    for what in (CORPORA, MODELS, ERROR_RATES):
        assert shipped(what) == ROOT / what and shipped(what).exists()
        assert here_or_shipped(tmp_path, what) == ROOT / what
    (tmp_path / CORPORA).mkdir()
    assert here_or_shipped(tmp_path, CORPORA) == tmp_path / CORPORA


def test_the_version_is_one() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{tinyablation.__version__}"\n' in text
    assert f"\nversion: {tinyablation.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_extra_is_of_the_librarys_version_and_licence() -> None:
    mine, extra = (
        tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        for folder in (ROOT, ROOT / "fixtures")
    )
    pin = f"{extra['name']}=={tinyablation.__version__}"
    assert mine["optional-dependencies"]["organisms"] == [pin]
    for field in ("version", "requires-python", "license", "license-files", "keywords"):
        assert extra[field] == mine[field], field
    assert extra["classifiers"] == [one for one in mine["classifiers"] if one != "Typing :: Typed"]
    assert (ROOT / "fixtures" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert {*OF_EXTRA, "tiny-gpt2", "tiny-llama"} == set(load_registry(ROOT / MODELS).local_ids)


@pytest.mark.parametrize("version", [None, "0.0.1", tinyablation.__version__])
def test_the_extra_is_used_if_it_is_of_the_same_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    """pip leaves it as it was where the library alone is updated."""
    for folder in ("shipped", "tinyablation_organisms"):
        (tmp_path / folder / "fixtures").mkdir(parents=True)
        (tmp_path / folder / MODELS).touch()
    if version is not None:
        about = tmp_path / f"tinyablation_organisms-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Name: tinyablation-organisms\nVersion: {version}\n")
    monkeypatch.setattr(places, "_IN_WHEEL", tmp_path / "shipped")
    monkeypatch.syspath_prepend(tmp_path)
    used = "tinyablation_organisms" if version == tinyablation.__version__ else "shipped"
    assert shipped(MODELS) == tmp_path / used / MODELS
    assert shipped(CORPORA) == tmp_path / "shipped" / CORPORA


# --- the wheel ----------------------------------------------------------------------------------


@pytest.mark.slow  # builds
def test_a_wheel_has_what_a_first_session_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        listed = archive.read("tinyablation/shipped/fixtures/models.toml").decode()
    (wheel.parent / "organisms").mkdir(exist_ok=True)
    (wheel.parent / "models.toml").write_text(listed)
    models = load_registry(wheel.parent / "models.toml")
    every = load_registry(ROOT / MODELS)
    assert models.local_ids == ("tiny-gpt2", "tiny-llama")
    assert models.named_only_ids == every.named_only_ids
    assert [models[name].checkpoints for name in models.named_only_ids] == [
        every[name].checkpoints for name in every.named_only_ids
    ]
    of_claims = {
        path.relative_to(ROOT / "claims").as_posix()
        for path in (ROOT / "claims").rglob("*.*")
        if path.suffix in (".py", ".toml", ".jsonl")
    }
    packs = {name.partition("tinyablation/packs/")[2] for name in names} - {"", "__init__.py"}
    assert packs == of_claims | {"suppressors/__init__.py", "literature/__init__.py"}
    assert {
        "tinyablation/py.typed",
        "tinyablation/shipped/corpora/text/addresses.jsonl",
        "tinyablation/shipped/corpora/tiny/facts.jsonl",
        "tinyablation/shipped/fixtures/calibration/error_rates.json",
        "tinyablation/shipped/fixtures/organisms/tiny-gpt2/model.safetensors",
    } <= names
    modules = (ROOT / "tinyablation").rglob("*.py")
    assert {path.relative_to(ROOT).as_posix() for path in modules} <= names
    about = metadata(wheel)
    assert about.get_payload().startswith((ROOT / "README.md").read_text()[:200])
    (pin,) = [one for one in about.get_all("Requires-Dist", []) if "==" in one.split(";")[0]]
    assert pin == f'tinyablation-organisms=={tinyablation.__version__}; extra == "organisms"'
    assert wheel.stat().st_size < 6_000_000


@pytest.mark.slow
def test_the_wheel_of_the_extra_has_all_embedded_models_and_no_code(organisms: Path) -> None:
    """What the checkout has, at the same paths."""
    models = [*(ROOT / "fixtures" / "organisms").glob("tiny-*/**/*"), ROOT / MODELS]
    files = {path.relative_to(ROOT).as_posix(): path for path in models if path.is_file()}
    with zipfile.ZipFile(organisms) as archive:
        for name, path in files.items():
            assert archive.read(f"tinyablation_organisms/{name}") == path.read_bytes(), name
        others = {name for name in archive.namelist() if ".dist-info/" not in name} - {
            f"tinyablation_organisms/{name}" for name in files
        }
    assert others == {"tinyablation_organisms/fixtures/__init__.py"}
    about = metadata(organisms)
    assert about.get_payload().startswith("# tinyablation-organisms")
    assert about.get_all("Requires-Dist") is None  # the library asks for it, not it for the library
    assert organisms.stat().st_size < 26_000_000


def metadata(wheel: Path) -> email.message.Message:
    """Of a wheel, with what `twine check` asks for: a description that PyPI can show."""
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(archive.read(found))
        licence = archive.read(found.replace("METADATA", "licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes() and about["License-Expression"] == "MIT"
    assert about["Description-Content-Type"] == "text/markdown"
    assert about["Version"] == tinyablation.__version__
    return about


@pytest.mark.slow
def test_its_console_script_and_its_version_are_there(installed: Environment, lab: Path) -> None:
    script = str(installed.folder / "bin" / "tinyablation")
    assert "usage: python -m tinyablation" in installed.run(lab, script, "--help").out
    code = "import tinyablation; print(tinyablation.__version__)"
    assert installed.run(lab, "-c", code).out.split() == [tinyablation.__version__]


@pytest.mark.slow  # measures a sweep
def test_one_claim_in_a_repository_of_two_files(installed: Environment, lab: Path) -> None:
    ran = installed.run(lab, "-m", "pytest")
    assert ran.code == 0, ran.out
    (record,) = records(lab)
    assert record["test"] == "tests/test_mine.py::test_head_seven_suppresses[tiny-gpt2-facts]"
    assert record["claim"] == "LAB.1"
    assert (record["verdict"], record["outcome"]) == ("supported", "passed")
    assert record["subject"] == "0:7" and len(record["runs"]) == 1
    assert record["low"] > record["floor"] > 0
    assert ran.cpu < MOST_S, f"{ran.cpu:.0f} s"
    # Nothing but the reports is written, and the installation is left as it was.
    left = {path.name for path in lab.iterdir()} - {".pytest_cache"}
    assert left == {"pyproject.toml", "tests", "tinyablation-reports"}


@pytest.mark.slow
def test_a_model_of_the_extra_is_told_to_come_with_it(installed: Environment, lab: Path) -> None:
    (lab / "tests" / "test_mine.py").write_text(OF_TWO)
    said = f"no model 'tiny-neox'; it comes with {INSTALL_EXTRA}"
    ran = installed.run(lab, "-m", "pytest")
    assert ran.code == pytest.ExitCode.INTERRUPTED
    assert f"tests/test_mine.py: test_head_one_suppresses: {said}" in ran.out.splitlines()
    ran = installed.run(lab, "-m", "pytest", "--model", "tiny-neox")
    assert ran.code == pytest.ExitCode.USAGE_ERROR
    assert ran.out.split("\n") == [f"ERROR: {said}", "", ""]


@pytest.mark.slow  # measures two sweeps, and eight models without interventions
def test_all_embedded_models_are_judged_with_the_extra(extended: Environment, lab: Path) -> None:
    (lab / "tests" / "test_mine.py").write_text(OF_TWO)
    ran = extended.run(lab, "-m", "pytest")
    assert ran.code == pytest.ExitCode.TESTS_FAILED, ran.out
    verdicts = {record["model"]: record["verdict"] for record in records(lab)}
    assert verdicts == {"tiny-neox": "supported", "tiny-mistral-plain": "refuted"}
    pack = ("--pyargs", "tinyablation.packs.suppressors", "--claim", "V.1", "-k", "facts")
    ran = extended.run(lab, "-m", "pytest", *pack)
    assert ran.code == 0, ran.out
    judged = {record["model"]: record["verdict"] for record in records(lab)}
    every = load_registry(ROOT / MODELS).local_ids
    assert judged == dict.fromkeys(every, "supported")


@pytest.mark.slow
def test_a_condition_of_forty_lines_on_a_named_model(installed: Environment, lab: Path) -> None:
    """Prompts that the model has words for; and those of corpora/examples, which it has not."""
    text = (ROOT / "corpora/tiny/facts.jsonl").read_text(encoding="utf-8")
    every = [json.loads(line) for line in text.splitlines()]
    fields = {
        **{name: name for name in ("clean", "corrupt", "target", "foil", "null")},
        **{"cluster": "cluster_id", "template": "template_id", "fact": "fact_id"},
    }
    kept = sorted({row["cluster_id"] for row in every})[::9][:10]
    rows = [row for row in every if row["cluster_id"] in kept][:40]
    assert len(rows) == 40
    own = [{short: row[name] for short, name in fields.items() if row.get(name)} for row in rows]
    (lab / "ioi.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    (lab / "tests" / "test_mine.py").write_text(ASKED)
    asked = ("--model", "tiny-gpt2", "--condition", "ioi=ioi.jsonl")
    refused = installed.run(lab, "-m", "pytest", *asked)
    assert refused.code == pytest.ExitCode.USAGE_ERROR
    assert "fewer than 20 clusters" in refused.out
    ran = installed.run(lab, "-m", "pytest", *asked, "--accept-defects")
    (record,) = records(lab)
    assert record["condition"] == "ioi" and record["published"] == []
    assert record["verdict"] in JUDGED, record["reason"]
    assert "ioi.jsonl (40 examples, 10 clusters" in record["details"]["corpus"]
    assert ran.cpu < MOST_S, f"{ran.cpu:.0f} s"
    # By the table of the project instead, and of a file that the model cannot read.
    example = ROOT / "corpora" / "examples" / "ioi.jsonl"
    (lab / "pyproject.toml").write_text(
        f"[tool.tinyablation]\nconditions = {{ ioi = {json.dumps(str(example))} }}\n"
    )
    ran = installed.run(lab, "-m", "pytest", "--model", "tiny-gpt2", "--accept-defects", "-rs")
    (record,) = records(lab)
    assert record["verdict"] == "blocked" and "ioi is not valid for tiny-gpt2" in ran.out


@pytest.mark.slow
def test_a_repository_without_claims_does_not_notice(installed: Environment, lab: Path) -> None:
    """No line of output besides the name among the plugins, and under 50 ms of imports."""
    (lab / "tests" / "test_mine.py").write_text("def test_theirs():\n    pass\n")
    (lab / "tests" / "conftest.py").write_text(
        "import sys\ndef pytest_sessionfinish():\n    print('HAS', *sys.modules)\n"
    )
    ran = installed.run(lab, "-m", "pytest", "-s")
    assert ran.code == 0
    has = set(ran.out.partition("HAS ")[2].splitlines()[0].split())
    ours = {name for name in has if name.split(".")[0] == "tinyablation"}
    assert "tinyablation.plugin.entry" in ours and len(ours) == 5
    assert not {"torch", "transformers", "pandas", "pydantic"} & has
    (lab / "tests" / "conftest.py").unlink()
    # Of what pytest has imported before, none of our modules needs more. The least of five, for
    # other programs of this machine take their time as well.
    code = (
        "import time, pytest; start = time.perf_counter(); import tinyablation.plugin.entry; "
        "print(time.perf_counter() - start)"
    )
    took = min(float(installed.run(lab, "-c", code).out) for _ in range(5))
    assert took < MOST_IMPORTING_S, took
    said = installed.run(lab, "-m", "pytest").out
    without = installed.run(lab, "-m", "pytest", "-p", "no:tinyablation.plugin.entry").out
    lines = [
        [line for line in text.splitlines() if not line.startswith(("plugins:", "====="))]
        for text in (said, without)
    ]
    assert lines[0] == lines[1]
    assert {path.name for path in lab.iterdir()} == {"pyproject.toml", "tests", ".pytest_cache"}


@pytest.mark.slow
def test_the_pack_of_the_literature(installed: Environment, lab: Path) -> None:
    """With conditions of its own: of one that this model has no words for it says so."""
    pack = ("--pyargs", "tinyablation.packs.literature", "-k", "tiny-gpt2")
    ran = installed.run(lab, "-m", "pytest", *pack, "--claim", "SINK.1,IND.3")
    assert ran.code == 0, ran.out
    found = {record["claim"]: record for record in records(lab)}
    assert found["SINK.1"]["verdict"] == found["SINK.1"]["prediction"] == "refuted"
    assert found["IND.3"]["verdict"] == "blocked" and found["SINK.1"]["runs"]


@pytest.mark.slow  # measures a sweep
def test_the_pack_of_the_suppressor_study(
    installed: Environment, lab: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By its name; and as a copy in a repository that names the plugin, as any may do."""
    of_facts = ("-k", "named_head_tops_its_layer and tiny-llama and facts and not plain")
    pack = ("--pyargs", "tinyablation.packs.suppressors")
    ran = installed.run(lab, "-m", "pytest", *pack, *of_facts)
    assert ran.code == 0, ran.out
    (record,) = records(lab)
    assert record["claim"] == "H1.1" and record["prediction"] == record["verdict"] == "supported"
    # Of the pack's subjects.toml: a head that was named beforehand is judged by all examples.
    assert record["subject"] == "0:0" and record["n_clusters"] == 97
    (lab / "tests" / "test_mine.py").write_text(MINE.replace("LAB.1", "H1.1"))
    ran = installed.run(lab, "-m", "pytest")
    assert ran.code == pytest.ExitCode.INTERRUPTED
    assert "the id H1.1 is taken by the pack suppressors; give the claim letters" in ran.out
    copy = tmp_path_factory.mktemp("copy")
    (copy / "fixtures").mkdir()
    subprocess.run(["cp", "-r", ROOT / "claims", copy / "claims"], check=True)
    for name in ("models.toml", "organisms"):  # its predictions are about all of these models
        (copy / "fixtures" / name).symlink_to(ROOT / "fixtures" / name)
    (copy / "conftest.py").write_text('pytest_plugins = ["tinyablation.plugin"]\n')
    (copy / "pytest.ini").write_text("[pytest]\ntestpaths = claims\n")
    runs = ("--reports", str(lab / "tinyablation-reports"))
    ran = installed.run(copy, "-m", "pytest", "claims", *runs, *of_facts)
    assert ran.code == 0, ran.out
    (again,) = records(lab)
    differ = {name for name in again if again[name] != record[name]}
    assert differ <= {"test", "accepted", "duration_s"}
    assert again["accepted"] == "supported"  # its own snapshots
