"""A file of 350 kB with 60 million rows, wherever a table is read: a line, a status, little memory.

Its row groups are one that stands in it sixty times, so that every column is as it should be. Row 5
of what an attacker tried: 13 GB of memory, and a traceback.

Run: pytest tests/test_large_tables.py
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evidence.forging import forged
from tests.evidence.test_contents import SHIPPED
from tinyablation.files.manifests import MANIFEST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="the memory of a process that has ended"),
]

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "reports" / "smollm2-135m"
ROWS, GROUP = 60_000_000, 1_000_000
# Of a process with its children. Measured: 445 where a session judges, 87 else.
MEGABYTES = 900
TABLES = ("metrics/per_example.parquet", "metrics/head_impact.parquet")


def lengthened(path: Path) -> None:
    """Put a table of 60 million rows in a table's place: its first row, again and again."""
    first = pq.read_table(path).slice(0, 1)
    again = pa.array([0] * GROUP)
    columns = [column.combine_chunks().dictionary_encode().take(again) for column in first.columns]
    part = pa.table(columns, names=first.column_names).replace_schema_metadata(
        first.schema.metadata
    )
    pq.write_table(part, path, compression="zstd", row_group_size=GROUP, store_schema=False)
    whole, group = pq.read_metadata(path), pq.read_metadata(path)
    for _ in range(ROWS // GROUP - 1):
        whole.append_row_groups(group)
    with tempfile.TemporaryDirectory() as made:
        whole.write_metadata_file(Path(made, "footer"))
        footer = Path(made, "footer").read_bytes()[4:]
    data = path.read_bytes()
    path.write_bytes(data[: -8 - int.from_bytes(data[-8:-4], "little")] + footer)


def in_a_run(run: Path) -> None:
    """The tables of a run, with a manifest that says so."""
    manifest = json.loads((run / MANIFEST).read_bytes())
    for name in TABLES:
        lengthened(run / name)
        data = (run / name).read_bytes()
        manifest["files"][name] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (run / MANIFEST).write_text(json.dumps(manifest))


class Ended(NamedTuple):
    status: int
    said: str
    megabytes: float


# A child begins with the peak of the process that started it, so a small one starts it.
STARTED = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", *sys.argv[2:]])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(str(peak / (1024 if sys.platform == "linux" else 1024**2)))
sys.exit(done.returncode)
"""


def ended(folder: Path, *command: str) -> Ended:
    """What came of a command, and the most memory that it or a child of it had."""
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STARTED, str(folder / "peak"), *command],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Ended(done.returncode, done.stdout, float((folder / "peak").read_text()))


def refused(found: Ended) -> str:
    """The one line that a command says so in."""
    assert found.status == 2 and found.said.count("\n") == 1, found.said
    assert "60,000,000 rows" in found.said and found.megabytes < MEGABYTES
    return found.said


def test_it_is_a_table_like_any_other_but_for_its_rows(tmp_path: Path) -> None:
    """Else it would be refused for something else."""
    path = tmp_path / "records.parquet"
    shutil.copyfile(REPORT / "records.parquet", path)
    lengthened(path)
    assert path.stat().st_size < 1_000_000
    whole = pq.ParquetFile(path)
    assert whole.metadata.num_rows == ROWS
    assert whole.schema_arrow.names == pq.read_schema(REPORT / "records.parquet").names
    last = whole.read_row_group(ROWS // GROUP - 1, columns=["claim"])["claim"]
    assert len(last) == GROUP and len(last.unique()) == 1


def test_in_a_bundle(tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        in_a_run(next((folder / "runs").glob("*-zero-facts_*")))

    path = forged(SHIPPED, tmp_path / "forged.zip", change)
    line = refused(ended(tmp_path, "tinyablation", "verdict", str(path)))
    assert line.startswith("error: ") and str(path) in line and TABLES[0] in line


@pytest.mark.parametrize("command", ["report", "drift"])
def test_in_place_of_records(tmp_path: Path, command: str) -> None:
    path = tmp_path / "records.parquet"
    shutil.copyfile(REPORT / "records.parquet", path)
    lengthened(path)
    given = {"report": [path, "-o", tmp_path / "out.html"], "drift": [path, path]}[command]
    line = refused(ended(tmp_path, "tinyablation", command, *map(str, given)))
    assert line.startswith(f"error: {path}: ") and not (tmp_path / "out.html").exists()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of one claim, and its runs, of which the sweep is given such a table."""
    folder = tmp_path_factory.mktemp("reports")
    found = ended(folder, *session(folder))
    assert found.status == 0, found.said
    (run,) = (folder / "runs").glob("tiny-llama-zero-facts_*")
    in_a_run(run)
    return folder


def session(reports: Path) -> list[str]:
    return [
        *("pytest", "claims", "-q", "-p", "no:cacheprovider", "--claim", "H1.1"),
        *("-k", "tiny-llama-facts", "--reports", str(reports)),
    ]


def test_in_a_run_that_a_session_reads_again(reports: Path) -> None:
    found = ended(reports, *session(reports))
    assert found.status == 1 and found.megabytes < MEGABYTES, found
    assert "Traceback" not in found.said
    (line, *_) = [each for each in found.said.splitlines() if "60,000,000 rows" in each]
    assert TABLES[0] in line
    records = json.loads((reports / "records.json").read_bytes())["records"]
    assert records and {record["verdict"] for record in records} == {"error"}
    assert all("60,000,000 rows" in record["reason"] for record in records)


def test_in_a_run_that_a_command_reads_again(reports: Path) -> None:
    (run,) = (reports / "runs").glob("tiny-llama-zero-facts_*")
    line = refused(ended(reports, "tinyablation", "rebuild-cross-condition", str(run)))
    assert line.startswith("error: ") and TABLES[1] in line
