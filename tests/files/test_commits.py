"""The commit that a file is as in.

Run: pytest tests/files/test_commits.py
"""

import subprocess

from tinyablation.files.commits import committed


def test_the_commit_of_a_file_is_known_where_it_is_as_committed(tmp_path):
    """A page that names a commit of the predictions must not name one that they differ from."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    file = tmp_path / "predictions.toml"
    file.write_text("a = 1\n")
    assert committed(file) is None  # no repository
    subprocess.run([*git, "init", "-q"], check=True)
    assert committed(file) is None  # never committed
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    (tmp_path / "other").write_text("x")
    subprocess.run([*git, "add", "other"], check=True)
    subprocess.run([*git, "commit", "-qm", "two"], check=True)
    assert committed(file) == head.stdout.strip()  # the one that changed it, not the last
    file.write_text("a = 2\n")
    assert committed(file) is None
