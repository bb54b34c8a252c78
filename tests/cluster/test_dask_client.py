"""A session takes plain text from a dask scheduler and its workers, whatever they send.

Run: pytest tests/cluster/test_dask_client.py
"""

import os
import pickle
import socket
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests import hostile_jobs
from tests.dask_processes import PATIENCE, Processes
from tinyablation.cluster import dask_client
from tinyablation.cluster.dask_client import ERRED, PickleRefused, refusing_pickles
from tinyablation.cluster.dispatch import opened
from tinyablation.cluster.executors import Lost, Unreachable, Unsafe, parse

posix = pytest.mark.skipif(os.name != "posix", reason="processes of their own")


def test_no_pickle_names_anything_while_a_scheduler_could_have_sent_it():
    sent = pickle.dumps(Fraction(1, 3))
    with refusing_pickles(), refusing_pickles():
        pass
    assert pickle.loads(sent) == Fraction(1, 3)
    with refusing_pickles():
        assert pickle.loads(pickle.dumps({"plain": [1, "text", None]}))
        with pytest.raises(PickleRefused, match=r"fractions\.Fraction was not loaded"):
            pickle.loads(sent)
        with pytest.raises(PickleRefused):
            pickle._loads(sent)  # type: ignore[attr-defined]
    assert pickle.loads(sent) == Fraction(1, 3)


def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 1)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = pytest.raises(
            Unreachable, match=rf"no dask scheduler.*tcp://{place}.*cluster\.md"
        )
        with refused, opened(parse(f"dask://{place}"), tmp_path):
            pass
    assert pickle.loads(pickle.dumps(Fraction(1, 3))) == Fraction(1, 3)


@pytest.mark.parametrize("place", ["10.0.0.5:8786", "node-7.lab:8786", "[2001:db8::1]:8786"])
def test_a_scheduler_on_a_network_is_not_spoken_to_without_tls(tmp_path, place):
    """Row 1b: nothing was said of who may connect, and nothing was encrypted."""
    refused = pytest.raises(Unsafe, match="without TLS anybody on the network")
    with refused, opened(parse(f"dask://{place}"), tmp_path):
        pass
    for loopback in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        assert dask_client._on_loopback(loopback)


def test_certificates_that_cannot_be_read_are_an_error_of_one_line(tmp_path, monkeypatch):
    import dask

    tls = {"ca-file": str(tmp_path / "ca.pem"), "client.cert": str(tmp_path / "c.pem")}
    with dask.config.set({f"distributed.comm.tls.{name}": path for name, path in tls.items()}):
        refused = pytest.raises(Unsafe, match="certificates cannot be used")
        with refused, opened(parse("dask://127.0.0.1:1"), tmp_path):
            pass


# --- what workers and schedulers send ------------------------------------------------------------


class Listening:
    """Hears what names pickles ask for; a hook that was added cannot be removed."""

    def __init__(self) -> None:
        self.names: list[str] | None = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class" and self.names is not None:
            self.names.append(".".join(map(str, arguments)))


LISTENING = Listening()


@pytest.fixture(scope="module")
def _listening() -> None:
    sys.addaudithook(LISTENING)


@pytest.fixture
def heard(_listening: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that pickles asked for in this process, also those that were refused."""
    # Its hook comes after ours, which else would not hear what it refuses.
    monkeypatch.setattr(dask_client, "refusing_pickles", dask_client.Refusal())
    LISTENING.names = []
    yield LISTENING.names
    LISTENING.names = None


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[str]:
    """An honest scheduler with one worker, which runs what it is sent."""
    processes = Processes(tmp_path_factory.mktemp("dask"), tmp_path_factory.mktemp("stores"))
    try:
        yield processes.cluster(1)
    finally:
        processes.end()


@posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "said"),
    [
        (hostile_jobs.returning, "only able to deserialize|Could not serialize"),
        (hostile_jobs.returning_in_a_list, "only able to deserialize|Could not serialize"),
        (hostile_jobs.returning_no_text, "it returned a dict and no receipt"),
        (hostile_jobs.raising, ERRED),
    ],
)
def test_what_a_changed_worker_returns_runs_nothing(place, tmp_path, heard, job, said):
    """Row 1b: a changed function of a worker had the session load pickles, and run code."""
    trap = tmp_path / "trap"
    with opened(parse(f"dask://{place}"), tmp_path) as jobs:
        with pytest.raises(Lost, match=said):
            jobs.submit(job, str(trap)).result(PATIENCE)
        assert jobs.submit(hostile_jobs.text, "").result(PATIENCE) == "text"
    assert not trap.exists() and heard == []


@posix
@pytest.mark.slow
@pytest.mark.parametrize("job", [hostile_jobs.of_a_type, hostile_jobs.warning, hostile_jobs.text])
def test_what_comes_beside_a_result_is_left_unread(place, tmp_path, heard, capsys, job):
    trap = tmp_path / "trap"
    with opened(parse(f"dask://{place}"), tmp_path) as jobs:
        assert jobs.submit(job, str(trap)).result(PATIENCE) == "text"
        assert jobs.submit(hostile_jobs.text, "").result(PATIENCE) == "text"
    assert not trap.exists() and heard == []
    assert capsys.readouterr().out == ""


@posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("type", False),
        ("erred", False),
        ("a warning", False),
        ("in the message", True),
        ("in a part of it", False),
        ("an error", True),
    ],
)
def test_a_changed_scheduler_can_end_a_session_and_runs_nothing(
    tmp_path, monkeypatch, heard, kind, refused
):
    trap = tmp_path / "trap"
    monkeypatch.setenv("TRAP", str(trap))
    monkeypatch.setenv("KIND", kind)
    processes = Processes(tmp_path, tmp_path)
    try:
        place = processes.cluster(1, "tests.hostile_scheduler")
        with opened(parse(f"dask://{place}"), tmp_path) as jobs:
            found = jobs.submit(hostile_jobs.text, "")
            error = found.exception(PATIENCE)
            assert refused <= isinstance(error, Lost)
            if refused:
                assert "was refused" in str(error)
                with pytest.raises(Unsafe, match="find out who changed it"):
                    jobs.submit(hostile_jobs.text, "")
    finally:
        processes.end()
    assert Path(f"{trap}.sent").exists() and not trap.exists()
    assert bool(heard) == refused
