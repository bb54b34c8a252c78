"""Executors by URL: what is refused.

Run: pytest tests/cluster/test_executors.py
"""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tinyablation.cluster.dispatch import opened
from tinyablation.cluster.executors import Address, NotInstalled, Options, UnknownExecutor, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("local", Address("local")),
        ("dask://127.0.0.1:8786", Address("dask", "127.0.0.1:8786")),
        ("dask://[::1]:8786?shards=3", Address("dask", "[::1]:8786", Options(shards=3))),
        ("slurm://gpu", Address("slurm", "gpu", Options(shards=4))),
        (
            "slurm://gpu,big?time=90&mem_gb=80&gpus=1&cpus=8&shards=2&jobs=30&account=a-1",
            Address("slurm", "gpu,big", Options(2, 30, 90, 80, 1, 8, "a-1")),
        ),
        ("processes://?jobs=3", Address("processes", "", Options(shards=4, jobs=3))),
    ],
)
def test_a_url_says_where_jobs_run(url, expected):
    assert parse(url) == expected
    assert parse(url).is_local == (url == "local")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("dsk://host:8786", "'dsk' is unknown; did you mean 'dask'?"),
        ("loca", "did you mean 'local'?"),
        ("k8s://there", "'k8s' is unknown; give local"),
        ("submitit-local://", "or processes://"),
        ("local://", "local takes no options"),
        ("dask://host", "host and port"),
        ("dask://user@host:8786", "no more"),
        ("dask://host:8786/path", "no more"),
        ("dask", "no more"),
        ("slurm://", "give the partition"),
        ("slurm://gpu?gpu=1", "'gpu' is unknown; did you mean 'gpus'?; slurm:// takes shards"),
        ("slurm://gpu?time=soon", "time='soon'; give a whole number from 1"),
        ("slurm://gpu?shards=0", "from 1"),
        ("slurm://gpu?account=a%20--wrap", "is not a name"),
        ("dask://host:8786?mem_gb=2", "dask:// takes shards"),
        ("processes://there", "it runs on this machine"),
    ],
)
def test_a_wrong_url_is_refused_with_the_nearest_known(url, said):
    with pytest.raises(UnknownExecutor) as refusal:
        parse(url)
    assert url in str(refusal.value) and said in str(refusal.value)


def test_a_package_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "distributed":
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "tinyablation.cluster.dask_client", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    refused = pytest.raises(NotInstalled, match=r"\[cluster\]")
    with refused, opened(parse("dask://127.0.0.1:1"), tmp_path):
        pass


def test_nothing_heavy_is_imported_to_read_a_url():
    code = (
        "import sys; from tinyablation.cluster.executors import parse; parse('dask://a:1'); "
        "print(*sorted({'torch', 'distributed', 'pandas'} & {*sys.modules}))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == ""
