"""docs/cluster.md: its commands listen where it says, and let nobody in without the key.

Run: pytest tests/test_cluster_page.py
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import hostile_jobs
from tests.dask_processes import PATIENCE, ROOT, Processes, until
from tinyablation.cluster.dispatch import opened
from tinyablation.cluster.executors import Unreachable, Unsafe, parse

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
HERE = "127.0.0.1"


def commands(program: str) -> list[list[str]]:
    """The page's commands of a program, as words."""
    lines = re.findall(r"^\$ (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    return [each for each in words if each[0] == program]


def test_every_command_that_listens_does_so_over_tls_at_one_named_address():
    """Row 1b: as the page started it, a scheduler listened everywhere, for anybody."""
    scheduler, worker = commands("dask")
    for words in (scheduler, worker):
        assert words[words.index("--host") + 1] in ("HOST", "OWN-HOST")
        assert words[words.index("--dashboard-address") + 1] == "127.0.0.1:0"
    assert scheduler[:4] == ["dask", "scheduler", "--protocol", "tls"]
    assert worker[:3] == ["dask", "worker", "tls://HOST:8786"]
    (exported,) = commands("export")
    assert exported[1].startswith("TINYABLATION_STORES=/")
    assert "require-encryption: true" in PAGE


class Cluster(NamedTuple):
    """What the page's commands made: their configuration, their address, their processes."""

    configuration: Path
    place: str
    processes: Processes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("page")
    (openssl,) = commands("openssl")
    subprocess.run(openssl, cwd=folder, check=True, capture_output=True)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    configuration = folder / "dask"
    configuration.mkdir()
    (configuration / "tls.yaml").write_text(text.replace("/home/me/", f"{folder}/"))
    processes = Processes(folder, folder)
    processes.environment["DASK_CONFIG"] = str(configuration)
    scheduler, worker = ([*each] for each in commands("dask"))
    try:
        scheduler[scheduler.index("8786")] = "0"
        scheduler[scheduler.index("HOST")] = HERE
        processes.start(*scheduler[1:])
        said = re.compile(rf"Scheduler at:\s+tls://({re.escape(HERE)}:\d+)")
        until("scheduler", lambda: said.search(processes.said(0)) is not None)
        place = said.search(processes.said(0))[1]
        worker[worker.index("tls://HOST:8786")] = f"tls://{place}"
        worker[worker.index("OWN-HOST")] = HERE
        processes.start(*worker[1:])
        until("worker", lambda: "Registered to:" in processes.said(1))
        yield Cluster(configuration, place, processes)
    finally:
        processes.end()


slow = pytest.mark.slow
posix = pytest.mark.skipif(os.name != "posix", reason="openssl, processes")


@slow
@posix
def test_they_listen_at_the_address_they_were_given_and_at_no_other(cluster):
    import psutil

    for begun in cluster.processes.begun:
        one = psutil.Process(begun.pid)
        found = [
            connection.laddr.ip
            for process in [one, *one.children(recursive=True)]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert found and set(found) == {HERE}


def asked(cluster: Cluster, code: str) -> str:
    """What a session of its own says, with the page's configuration."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **cluster.processes.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout + done.stderr[-2000:]


@slow
@posix
def test_a_session_with_the_key_gets_its_answer(cluster, tmp_path):
    code = (
        "from pathlib import Path\n"
        "from tests import hostile_jobs\n"
        "from tinyablation.cluster.dispatch import opened\n"
        "from tinyablation.cluster.executors import parse\n"
        f"with opened(parse('dask://{cluster.place}'), Path({str(tmp_path)!r})) as jobs:\n"
        f"    print(jobs._url, jobs.submit(hostile_jobs.text, '').result({PATIENCE}))\n"
    )
    assert f"tls://{cluster.place} text" in asked(cluster, code)


@slow
@posix
@pytest.mark.parametrize("kind", ["nothing", "another key"])
def test_one_without_the_key_is_not_let_in(cluster, tmp_path, monkeypatch, kind):
    import dask

    settings = {}
    if kind == "another key":
        (openssl,) = commands("openssl")
        subprocess.run(openssl, cwd=tmp_path, check=True, capture_output=True)
        tls = "distributed.comm.tls"
        settings = {
            f"{tls}.ca-file": f"{cluster.processes.folder}/cert.pem",
            f"{tls}.client.cert": f"{tmp_path}/cert.pem",
            f"{tls}.client.key": f"{tmp_path}/key.pem",
        }
    monkeypatch.setattr("tinyablation.cluster.dask_client.CONNECT_SECONDS", 3)
    refused = pytest.raises((Unreachable, Unsafe))
    url = parse(f"dask://{cluster.place}")
    with dask.config.set(settings), refused, opened(url, tmp_path) as jobs:
        jobs.submit(hostile_jobs.text, "").result(PATIENCE)
    assert cluster.processes.begun[0].poll() is None


@slow
@posix
def test_the_certificate_is_one_that_the_strictest_accept(cluster):
    """As Python 3.13 does by itself: a certificate that signs must say so."""
    where = str(cluster.processes.folder / "cert.pem")
    command = ["openssl", "verify", "-x509_strict", "-CAfile", where, where]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
