"""No pickle is loaded, since loading one can run code: neither by our words nor by a session.

Run: pytest tests/test_no_pickles.py
"""

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dask_processes import Processes

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


@pytest.mark.slow
def test_a_cold_session_with_workers_loads_none(tmp_path: Path) -> None:
    """Models, corpora, measurement, verification, verdicts, report: all that a session reads."""
    lines = heard(
        tmp_path,
        *("-m", "pytest", "claims", "-n", "2", "-p", "no:cacheprovider", "--claim", "H1.1"),
        *("-k", "tiny-llama-facts", "--reports", str(tmp_path / "reports")),
    )
    assert (tmp_path / "reports" / "claims.html").exists()
    assert lines.count("listening") >= 3 and set(lines) == {"listening"}


SMALL = ("-p", "no:cacheprovider", "--claim", "V,H1.1", "-k", "tiny-llama and not plain and facts")


@pytest.mark.slow
def test_a_session_whose_jobs_are_processes_loads_none_nor_do_they(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    command = ["-m", "pytest", "claims", *SMALL, "--reports", str(reports)]
    lines = heard(tmp_path, *command, "--executor", "processes://?jobs=2")
    receipts = [*(reports / "runs" / ".jobs").glob("*/*.json")]
    assert receipts and lines.count("listening") > len(receipts)
    assert set(lines) == {"listening"}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes of their own")
def test_a_session_with_dask_loads_none(tmp_path: Path) -> None:
    """But dask's own: as it is imported it makes some of its functions' names, and loads them.

    Its workers load more, docs/cluster.md says: the names of what they are to call.
    """
    (tmp_path / "import").mkdir()
    own = heard(tmp_path / "import", "-c", "import distributed")
    assert own.count("listening") == 1 and all("dask" in it or "_operator" in it for it in own[1:])
    dask = tmp_path / "dask"
    dask.mkdir()
    processes = Processes(dask, tmp_path)
    reports = tmp_path / "reports"
    try:
        url = f"dask://{processes.cluster(1)}"
        command = ["-m", "pytest", "claims", *SMALL, "--reports", str(reports)]
        lines = heard(tmp_path, *command, "--executor", url)
    finally:
        processes.end()
    assert (reports / "claims.html").exists() and Counter(lines) == Counter(own)
    assert [*(reports / "runs").glob("tiny-llama-*/manifest.json")]


def test_a_pickle_that_is_loaded_is_heard(tmp_path: Path) -> None:
    code = "import fractions, pickle; pickle.loads(pickle.dumps(fractions.Fraction(1, 3)))"
    assert "fractions.Fraction" in heard(tmp_path, "-c", code)
