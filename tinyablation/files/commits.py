"""The git commits of files."""

import subprocess
from pathlib import Path


def committed(path: Path) -> str | None:
    """The git commit that last changed a file; None if it has uncommitted changes or no git."""
    git = ["git", "-C", str(path.parent)]
    try:
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", path.name], capture_output=True, text=True
        )
        found = subprocess.run(
            [*git, "log", "-1", "--format=%H", "--", path.name], capture_output=True, text=True
        )
    except OSError:
        return None
    if changed.returncode or changed.stdout.strip() or found.returncode:
        return None
    return found.stdout.strip() or None
