"""A miniature suite: the plugin without its models, the project's pytest.ini, fake models.

Every test runs it in a process of its own, for these modules are loaded in this one too.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tinyablation import plugin
from tinyablation.records.conditions import ALL_CONDITIONS

ROOT = Path(__file__).parents[2]
MODELS = ("tiny-gpt2", "tiny-gpt2-plain", "tiny-mistral")
# The modules that hold real models and corpora; a miniature has its own in claims/conftest.py.
HEAVY = tuple(
    f"tinyablation.plugin.{name}"
    for name in (
        *("benches", "measurement_fixtures", "derived_fixtures", "head_fixtures"),
        "attention_fixtures",
    )
)

CLAIMS_CONFTEST = '''
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def model(request):
    with open(HERE / "loads.txt", "a") as file:
        file.write(f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')} {request.param}\\n")
    return request.param


@pytest.fixture(scope="session")
def condition(request):
    return request.param


@pytest.fixture
def verdict():
    """A verdict with an effect of one nat, or none."""
    def make(status="supported", estimate=1.0, reason="because"):
        effect = None
        if estimate is not None:
            effect = SimpleNamespace(
                estimate=estimate, low=estimate - 0.25, high=estimate + 0.25, n=40, n_clusters=20
            )
        return SimpleNamespace(
            status=status, reason=reason, effect=effect, floor=0.1, p_corrected=0.01, unit="nats",
            details={},
        )
    return make
'''

CLAIM = '''
@pytest.mark.claim("{claim}")
def {name}({arguments}):
    """The sentence of {claim}.

    Estimator: mean of something.
    Threshold: above the floor.
    Refuted if: below it.
    """
    {body}
'''


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that runs sessions of its own, some 3 s each, is slow."""
    for item in items:
        if "suite" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


class Suite:
    """One miniature project, and what a run of it left behind."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.root = pytester.path
        shutil.copy(ROOT / "pytest.ini", self.root / "pytest.ini")
        light = [name for name in plugin.pytest_plugins if name not in HEAVY]
        self.write("conftest.py", f"pytest_plugins = {light}\n")
        self.models(*MODELS)
        self.write("claims/conftest.py", CLAIMS_CONFTEST)

    def write(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def models(self, *names: str, hub: Sequence[str] = ()) -> None:
        """Register these models, without any weights: folders, and repositories owner/<id>."""
        tables = [
            f'[[model]]\nid = "{name}"\ntitle = "{name}"\nsource = "organisms/{name}"\n'
            f'family = "gpt2"\nvariant = "hedged"\nbos = true\n'
            for name in names
        ]
        tables += [
            f'[[model]]\nid = "{name}"\ntitle = "{name}"\nrepo = "owner/{name}"\n'
            f'family = "mistral"\nvariant = "natural"\nparameters = 7241732096\n'
            for name in hub
        ]
        self.write("fixtures/models.toml", "\n".join(tables))

    def claims(self, module: str, *claims: str) -> None:
        """Write a module under claims/ from texts made by `claim`."""
        self.write(f"claims/{module}.py", "import os, signal\nimport pytest\n" + "".join(claims))

    @staticmethod
    def claim(
        claim: str = "H1.1",
        name: str = "test_it_holds",
        body: str = "judge(verdict())",
        arguments: str = "model, condition, judge, verdict",
    ) -> str:
        """The source of one claim."""
        return CLAIM.format(claim=claim, name=name, body=body, arguments=arguments)

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*arguments)

    def accept(self, *arguments: str) -> pytest.RunResult:
        """Write the snapshots that are missing, as `make accept` does."""
        return self.run("claims", "--snapshot-update-new-only", *arguments)

    def loads(self) -> list[tuple[str, str]]:
        """(worker, model) of every load since the last call."""
        path = self.root / "claims" / "loads.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [(worker, model) for worker, model in (line.split() for line in lines)]

    def records(self, folder: str = "reports") -> dict[str, dict[str, Any]]:
        """The session's records by test name with its parameters."""
        content = json.loads((self.root / folder / "records.json").read_text())
        return {record["test"].rsplit("::", 1)[1]: record for record in content["records"]}

    def baselines(self) -> dict[str, str]:
        """The text of every baseline by its model."""
        folder = self.root / "claims" / "__snapshots__"
        return {path.stem: path.read_text() for path in sorted(folder.glob("*.json"))}

    def snapshots(self) -> dict[str, dict[str, Any]]:
        """The figures of every snapshot by test name with its parameters."""
        found = {}
        for model, text in self.baselines().items():
            for key, figures in json.loads(text).items():
                _, test, condition = key.split(" ")
                found[f"{test}[{model}-{condition}]".replace(f"-{ALL_CONDITIONS}]", "]")] = figures
        return found


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A fresh miniature project without claims."""
    # This process may itself be a worker, and run in CI; its children must not believe they do.
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_ADDOPTS", "CI"):
        monkeypatch.delenv(variable, raising=False)
    # The plugin of this checkout, whichever one is installed.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Suite(pytester)
