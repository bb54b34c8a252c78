"""No pickle is loaded, since loading one can run code: neither by our words nor by a session.

Run: pytest tests/test_no_pickles.py
"""

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import fake_slurm
from tests.dask_processes import Processes
from tinyablation.cluster.executors import EXECUTORS

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for folder in ("tinyablation", "fixtures", "claims")
    for path in (ROOT / folder).rglob("*.py")
)
# What loads pickles, whatever the file is called; dask comes in by its own name, and what it is
# kept from loading in a session is tested in tests/cluster/test_dask_client.py.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "read_pickle", "np.load", "numpy.load", "torch.jit.load"}


def loads_of(text: str) -> Iterator[str]:
    """Where a module's source could load a pickle, as "line: what"."""
    for node in ast.walk(ast.parse(text)):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named = [(node.module or "").split(".")[0]]
        yield from (f"{node.lineno}: {name}" for name in named if name in MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.rsplit(".", 1)[-1] == "read_pickle":
                yield f"{node.lineno}: {called}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield f"{node.value.lineno}: allow_pickle"
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "use_safetensors"):
            safe = node.arg == "use_safetensors"
            if not (isinstance(node.value, ast.Constant) and node.value.value is safe):
                yield f"{node.value.lineno}: {node.arg}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_can_load_a_pickle(path: Path) -> None:
    assert list(loads_of(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "import pandas\npandas.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "M.from_pretrained('x', trust_remote_code=True)",
        "M.from_pretrained('x', use_safetensors=False)",
    ],
)
def test_the_search_finds_one(text: str) -> None:
    assert list(loads_of(text))


def test_there_is_something_to_search() -> None:
    assert len(SOURCES) > 100


# Python runs it at the start of each process, workers of xdist among them.
AUDIT = """
import os, sys

def heard(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["HEARD"], "a") as log:
            log.write(".".join(map(str, arguments)) + "\\n")

sys.addaudithook(heard)
with open(os.environ["HEARD"], "a") as log:
    log.write("listening\\n")
"""


def heard(tmp_path: Path, *command: str) -> list[str]:
    """What any process of a command loaded of a pickle, by class; one "listening" a process."""
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "sitecustomize.py").write_text(AUDIT)
    log = tmp_path / "heard"
    found = os.pathsep.join([str(tmp_path / "audit"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": found, "HEARD": str(log), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return log.read_text().split("\n")[:-1]


@contextmanager
def executor(scheme: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The options of a session whose jobs run there, while they can."""
    folder.mkdir()
    if scheme == "local":  # in workers of the session, which are processes of it
        yield ["-n", "2"]
    elif scheme == "processes":
        yield ["--executor", "processes://?jobs=2"]
    elif scheme == "slurm":
        fake_slurm.put(folder / "slurm", monkeypatch)
        yield ["--executor", "slurm://some?shards=8"]
    elif scheme == "dask":
        processes = Processes(folder, folder.parent)
        try:
            yield ["--executor", f"dask://{processes.cluster(1)}"]
        finally:
            processes.end()
    else:
        pytest.fail(f"nobody listens to {scheme}")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes of their own")
@pytest.mark.parametrize(
    "scheme",
    # "slurm" starts the same job as "processes", by another command.
    [
        pytest.param(each, marks=[pytest.mark.nightly] if each == "slurm" else [])
        for each in EXECUTORS
    ],
)
def test_a_cold_session_loads_none_wherever_its_jobs_run(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models, corpora, measurement, verification, verdicts, report: all that a session reads.

    Every process of it is listened to, those of its jobs too, but for dask's workers, which are no
    processes of the session: docs/cluster.md says what they load.
    """
    reports = tmp_path / "reports"
    with executor(scheme, tmp_path / "executor", monkeypatch) as options:
        lines = heard(
            tmp_path,
            *("-m", "pytest", "claims", "-p", "no:cacheprovider", "--claim", "V,H1.1"),
            *("-k", "tiny-llama and not plain and facts", "--reports", str(reports), *options),
        )
    assert (reports / "claims.html").exists()
    assert [*(reports / "runs").glob("tiny-llama-*/manifest.json")]
    if scheme == "dask":
        # As it is imported it makes some of its functions' names, and loads them.
        (tmp_path / "import").mkdir()
        own = heard(tmp_path / "import", "-c", "import distributed")
        assert all("dask" in each or "_operator" in each for each in own if each != "listening")
        assert Counter(lines) == Counter(own) and own.count("listening") == 1
    else:
        jobs = len([*(reports / "runs" / ".jobs").glob("*/*.json")])
        assert (jobs > 0) == (scheme != "local")
        assert set(lines) == {"listening"} and lines.count("listening") > max(2, jobs)


def test_a_pickle_that_is_loaded_is_heard(tmp_path: Path) -> None:
    code = "import fractions, pickle; pickle.loads(pickle.dumps(fractions.Fraction(1, 3)))"
    assert "fractions.Fraction" in heard(tmp_path, "-c", code)
