"""`pytest claims -k mistral -n 4` on the real suite, in the four situations a machine can be in.

Run: pytest tests/test_claims_four_situations.py

The hub is a server of this machine that serves the embedded tiny-mistral as
mistralai/Mistral-7B-v0.1, so that verdicts are real: they are those of tiny-mistral. One claim
(V.1) stands for all, since each needs the same sweep; measurements are shared by the tests of this
file, as they would be by the sessions of one machine.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.loopback_hub import TOKEN, LoopbackHub, files_of, make_checkpoint

pytestmark = pytest.mark.slow  # sessions, servers or processes of their own: make slow

ROOT = Path(__file__).parent.parent
ORGANISM = ROOT / "fixtures" / "organisms" / "tiny-mistral"
REPO = "mistralai/Mistral-7B-v0.1"
CONDITIONS = ("facts", "negation", "counterfactual", "logic")
EMBEDDED = ("tiny-mistral", "tiny-mistral-plain")
CLAIM = ("--claim", "V.1")
MISTRAL = ("-k", "mistral", "-n", "4", *CLAIM)
# Sums over the same numbers in another order (threads, a warm table) differ by some 1e-5.
TOLERANCE = 1e-4


class Session(NamedTuple):
    """What a run of the claims came to."""

    code: int
    out: str
    error: str
    records: dict[str, dict]  # by "model-condition"
    models: dict[str, dict]
    device: str

    def outcomes(self, model: str) -> list[tuple[str, str]]:
        found = [record for record in self.records.values() if record["model"] == model]
        return [(record["verdict"], record["outcome"]) for record in found]

    def reasons(self, model: str) -> set[str]:
        return {record["reason"] for record in self.records.values() if record["model"] == model}


class Machine:
    """A machine of its own: HF_HOME, a store of measurements, and the suite."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.home, self.store = folder / "hf", store

    def run(self, hub: LoopbackHub, *arguments: str, **environment: str | bool) -> Session:
        """`pytest claims ...` with this machine's cache, talking to the hub alone."""
        variables = hub.environment(self.home, **environment)
        for name in list(variables):
            if name.startswith("PYTEST_"):  # this process may be a worker; those are not
                del variables[name]
        records = self.store / "records.json"
        records.unlink(missing_ok=True)
        given = list(arguments)
        if not any(argument.startswith("claims") for argument in given):
            given.insert(0, "claims")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *given, "--reports", str(self.store)],
            cwd=ROOT,
            env=variables | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        content = json.loads(records.read_text()) if records.exists() else None
        return Session(
            done.returncode,
            done.stdout,
            done.stderr,
            {f"{r['model']}-{r['condition']}": r for r in content["records"]} if content else {},
            {m["id"]: m for m in content["session"]["models"]} if content else {},
            content["session"]["device"] if content else "",
        )


@pytest.fixture
def hub():
    with LoopbackHub() as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Measurements of all tests of this file, the embedded ones made once."""
    return tmp_path_factory.mktemp("reports")


@pytest.fixture
def machine(tmp_path, store):
    return Machine(tmp_path, store)


SUPPORTED = [("supported", "passed")] * 4
BLOCKED = [("blocked", "skipped")] * 4


def assert_embedded_as_ever(session: Session) -> None:
    for model in EMBEDDED:
        assert session.outcomes(model) == SUPPORTED, session.out


# --- the four situations ------------------------------------------------------------------------


def test_embedded_only(hub, machine):
    """Offline, with an empty cache: what is embedded is judged, the rest is blocked."""
    hub.add(REPO, ORGANISM)
    session = machine.run(hub, *MISTRAL, offline=True)
    assert session.code == 0, session.out + session.error
    assert_embedded_as_ever(session)
    assert session.outcomes("mistral-7b") == BLOCKED
    (reason,) = session.reasons("mistral-7b")
    assert "HF_HUB_OFFLINE is set; unset it to download the model, set HF_HOME" in reason
    assert f"4 test cases of mistral-7b are blocked: {reason}" in session.out
    assert (
        f"named: mistral-7b ({REPO}); HF_HUB_OFFLINE is set: from the hub's cache only"
        in session.out
    )
    assert not hub.requests
    # The page has the models that are asked about, not the twelve that are not.
    assert [name for name in session.models if not name.startswith("tiny-")] == ["mistral-7b"]


def test_downloadable_then_cached(hub, machine):
    """The first session fetches it, once for four workers; the next asks nobody for anything."""
    commit = hub.add(REPO, ORGANISM)
    session = machine.run(hub, *MISTRAL, "--dtype", "float32")
    assert session.code == 0, session.out + session.error
    assert_embedded_as_ever(session)
    assert session.outcomes("mistral-7b") == SUPPORTED
    assert len(hub.asked("GET", "/model.safetensors")) == 1
    # Its bars reach the terminal, through a worker of xdist too.
    assert re.search(r"Fetching \d+ files: 100%", session.error), session.error
    # These are tiny-mistral's weights, so the figures are tiny-mistral's.
    for condition in CONDITIONS:
        ours, known = (session.records[f"{m}-{condition}"] for m in ("mistral-7b", "tiny-mistral"))
        assert ours["effect"] == pytest.approx(known["effect"], abs=TOLERANCE)
        assert ours["prediction"] is None and known["prediction"] == "supported"
    card = session.models["mistral-7b"]
    assert card["note"] == f"{REPO}@{commit}, 7.24 billion parameters"
    assert card["weight_hash"] == session.models["tiny-mistral"]["weight_hash"]
    assert session.device == "cpu (float32)"

    # Cached: loaded from there, in the dtype of its entry, and judged.
    before = len(hub.requests)
    session = machine.run(hub, *MISTRAL)
    assert session.code == 0, session.out + session.error
    assert_embedded_as_ever(session)
    assert {verdict for verdict, _ in session.outcomes("mistral-7b")} == {"supported"}
    assert session.device == "cpu (bfloat16), cpu (float32)"
    details = session.records["mistral-7b-facts"]["details"]
    assert details["snapshot"].startswith("not compared: measured on cpu in bfloat16")
    # Offline it is the same, and --require-models is content.
    session = machine.run(hub, *MISTRAL, "--require-models", offline=True)
    assert session.code == 0, session.out + session.error
    assert len(hub.requests) == before


def test_gated(hub, machine):
    """Without a licence it is blocked, and says how to get one; required, it fails."""
    hub.add(REPO, ORGANISM, gated="login")
    session = machine.run(hub, *MISTRAL)
    assert session.code == 0, session.out + session.error
    assert_embedded_as_ever(session)
    assert session.outcomes("mistral-7b") == BLOCKED
    (reason,) = session.reasons("mistral-7b")
    assert f"{REPO} is gated; accept its licence at {hub.url}/{REPO}, then log in" in reason
    assert not hub.asked("GET", "/model.safetensors")

    required = machine.run(hub, *MISTRAL, "--require-models")
    assert required.code == pytest.ExitCode.TESTS_FAILED
    assert_embedded_as_ever(required)
    assert required.outcomes("mistral-7b") == [("blocked", "failed")] * 4
    assert required.reasons("mistral-7b") == {reason}
    assert f"ModelRequired: {reason}" in required.out
    # Whoever has accepted it gets it (and the measurements of these weights are there already,
    # where the tests before made them).
    session = machine.run(
        hub, "-k", "mistral-7b and facts", "--dtype", "float32", *CLAIM, token=TOKEN
    )
    assert session.code == 0, session.out + session.error
    assert session.outcomes("mistral-7b") == SUPPORTED[:1]


# --- what names a model, and what does not ------------------------------------------------------


def test_a_bare_run_asks_no_server_for_anything(hub, machine, tmp_path):
    """Whatever the user's settings are; ended after a cell that had to be measured."""
    hub.add(REPO, ORGANISM)
    plugin = tmp_path / "ends_early.py"
    plugin.write_text("def pytest_runtest_teardown(item): item.session.shouldstop = 'enough'\n")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    session = machine.run(hub, "-p", "ends_early", "claims", *CLAIM, PYTHONPATH=paths)
    assert session.outcomes("tiny-gpt2") == SUPPORTED[:1], session.out + session.error
    assert not hub.requests
    assert "models to download, each runs only if named" in session.out
    assert "\nnamed: " not in session.out


def test_a_session_whose_measurements_are_there_loads_no_torch(hub, machine, tmp_path):
    """Not even to choose its device, on a machine with a CPU only."""
    (tmp_path / "heavy.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    print('heavy:', [n for n in ('torch', 'huggingface_hub') if n in sys.modules])\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    arguments = ("-k", "tiny-mistral and not plain and facts", *CLAIM)
    machine.run(hub, *arguments)
    session = machine.run(hub, "-p", "heavy", "claims", *arguments, PYTHONPATH=paths)
    assert session.outcomes("tiny-mistral") == SUPPORTED[:1]
    from tinyablation.models.devices import look

    expected = "heavy: []" if look().torch.endswith("+cpu") else "heavy: ['torch']"
    assert expected in session.out


def test_listing_all_of_them_loads_and_asks_nothing(hub, machine):
    session = machine.run(hub, "--collect-only", "-q", "-m", "hub")
    assert session.code == 0, session.out + session.error
    listed = re.findall(r"test_model_is_competent\[(.*)-facts\]", session.out)
    assert len(listed) == len(set(listed)) == 13
    assert {"gpt2", "mistral-7b", "llama-3-8b", "open-llama-7b", "pythia-2.8b"} <= set(listed)
    assert not any(name.startswith("tiny-") for name in listed)
    assert not hub.requests and not machine.home.exists()


def test_models_without_an_entry(hub, machine, tmp_path):
    """A folder, a repository, a revision of it; and one that is not there."""
    folder = tmp_path / "My Model"
    shutil.copytree(ORGANISM, folder)
    hub.add("owner/Name", ORGANISM, revisions={"step1000": ORGANISM})
    one = ("-k", "facts", *CLAIM)
    session = machine.run(hub, *one, "--model", str(folder), "--model", "owner/Name")
    assert session.code == 0, session.out + session.error
    assert set(session.records) == {"my-model-facts", "name-facts"}
    for name in ("my-model", "name"):
        assert session.outcomes(name) == SUPPORTED[:1]
        # Nothing is registered for it, though "tiny-*" has its weights.
        assert session.records[f"{name}-facts"]["prediction"] is None
    assert session.models["name"]["note"].startswith("owner/Name@")
    assert "deselected" in session.out

    at = ("--model", "owner/Name", "--revision")
    session = machine.run(hub, *one, *at, "step1000")
    assert session.outcomes("name-step1000") == SUPPORTED[:1], session.out + session.error
    session = machine.run(hub, *one, *at, "step2000")
    # A model that the command names by its id, or place, is never silently left out.
    assert (session.code, session.outcomes("name-step2000")) == (1, BLOCKED[:1])
    assert "ERROR: name-step2000 was named but is not available: " in session.out
    (reason,) = session.reasons("name-step2000")
    assert "owner/Name has no revision 'step2000'; its branches and tags are at" in reason
    session = machine.run(hub, *one, *at, "step2000", "--require-models")
    assert (session.code, session.outcomes("name-step2000")) == (1, [("blocked", "failed")])


def test_unsupported_architectures_are_refused_with_the_list(hub, machine, tmp_path):
    """A folder before anything starts, a repository in each of its cells, never as blocked."""
    config = json.loads((ORGANISM / "config.json").read_text())
    bert = json.dumps(config | {"architectures": ["BertForMaskedLM"], "model_type": "bert"})
    folder = tmp_path / "bert"
    shutil.copytree(ORGANISM, folder)
    (folder / "config.json").write_text(bert)
    session = machine.run(hub, "--model", str(folder), *CLAIM, "-n", "2")
    assert session.code == pytest.ExitCode.USAGE_ERROR and not session.records
    refused = "architecture BertForMaskedLM is not supported. Tested are GPT2LMHeadModel"
    assert refused in session.error and "TransformerLens also has adapters for" in session.error

    files = files_of(ORGANISM, without=["config.json"], config__json=bert.encode())
    hub.add("owner/bert", files)
    session = machine.run(hub, "--model", "owner/bert", "-k", "facts or logic", *CLAIM)
    assert session.code == pytest.ExitCode.TESTS_FAILED
    assert session.outcomes("bert") == [("error", "error")] * 2
    assert all(refused in reason for reason in session.reasons("bert"))


def test_too_few_prompts_of_a_tokenizer_block_with_the_counts(hub, machine, tiny_folders, tmp_path):
    """A tokenizer that knows none of the corpora's words: no condition is left to judge."""
    strange = make_checkpoint(tmp_path / "strange", "mistral", tiny_folders["mistral"])
    arguments = ("--model", str(strange), "-k", "facts", *CLAIM, "--require-models")
    session = machine.run(hub, *arguments)
    assert (session.code, session.outcomes("strange")) == (0, BLOCKED[:1]), session.out
    (reason,) = session.reasons("strange")
    assert "facts: 0 prompts are left, 200 are wanted" in reason
