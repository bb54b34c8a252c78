"""Slurm's commands, pretended: jobs are real processes of this machine. Not tests.

A job's folder has what sbatch was told (words), the script it read (script), the process (pid), and
what squeue says once it has ended (state).
"""

import json
import os
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 60
COMMANDS = {
    "sbatch": """
import json, subprocess
jobs = here / "jobs"
jobs.mkdir(exist_ok=True)
number = 100 + len(list(jobs.iterdir()))
job = jobs / str(number)
job.mkdir()
(job / "words").write_text(json.dumps(sys.argv[1:]))
(job / "script").write_text(sys.stdin.read())
log = next(word for word in sys.argv if word.startswith("--output=")).partition("=")[2]
with open(log.replace("%%", "%"), "wb") as output, open(os.devnull) as nothing:
    # A keeper outlives sbatch, as Slurm's daemon does, and notes how the job ended.
    keeper = (
        "import os, subprocess, sys; from pathlib import Path; job = Path(sys.argv[1])\\n"
        "done = subprocess.Popen(['sh', str(job / 'script')])\\n"
        "(job / 'pid').write_text(str(done.pid)); status = done.wait()\\n"
        "end = 'COMPLETED' if not status else 'NODE_FAIL' if status in (-9, 137) else 'FAILED'\\n"
        "(job / 'state').exists() or (job / 'state').write_text(end)\\n"
    )
    subprocess.Popen(
        [sys.executable, "-c", keeper, str(job)],
        stdin=nothing, stdout=output, stderr=output, start_new_session=True,
    )
while not (job / "pid").exists():
    time.sleep(0.01)
print(number)
""",
    "squeue": """
assert "--noheader" in sys.argv and "--format=%i|%T" in sys.argv and "--states=all" in sys.argv
assert f"--user={os.getuid()}" in sys.argv and "SQUEUE_FORMAT" not in os.environ
for job in sorted((here / "jobs").iterdir()):
    state = job / "state"
    print(f"{job.name}|{state.read_text() if state.exists() else 'RUNNING'}")
""",
    "scancel": """
for number in sys.argv[1:]:
    job = here / "jobs" / number
    (job / "state").write_text("CANCELLED")
    try:
        os.kill(int((job / "pid").read_text()), signal.SIGTERM)
    except ProcessLookupError:
        pass
""",
}
HEAD = "#!{python}\nimport os, signal, sys, time\nfrom pathlib import Path\nhere = Path({here!r})\n"


class FakeSlurm:
    """The commands in a folder, and what became of their jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "jobs").iterdir())

    def words(self, number: str) -> list[str]:
        found: list[str] = json.loads((self.folder / "jobs" / number / "words").read_text())
        return found

    def script(self, number: str) -> str:
        return (self.folder / "jobs" / number / "script").read_text()

    def state(self, number: str) -> str:
        return (self.folder / "jobs" / number / "state").read_text()

    def wait(self, number: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "jobs" / number / "state").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def said(self, command: str, text: str, status: int = 0) -> None:
        """Let a command say this from now on, and end with this status."""
        stream = "sys.stderr" if status else "sys.stdout"
        self._put(command, f"print({text!r}, file={stream})\nsys.exit({status})\n")

    def _put(self, command: str, text: str) -> None:
        path = self.folder / command
        path.write_text(HEAD.format(python=sys.executable, here=str(self.folder)) + text)
        path.chmod(0o755)


def put(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Put the commands into a folder, which comes first on PATH."""
    folder.mkdir()
    made = FakeSlurm(folder)
    for command, text in COMMANDS.items():
        made._put(command, text)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return made
