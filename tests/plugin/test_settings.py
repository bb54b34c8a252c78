"""What a project says of its claims in pyproject.toml. Run: pytest tests/plugin/test_settings.py"""

from pathlib import Path

import pytest

from tinyablation.plugin.settings import Settings, SettingsError, read_settings


def write(folder: Path, table: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(f"[project]\nname = 'lab'\n{table}", encoding="utf-8")
    return path


def test_a_project_that_says_nothing_has_the_defaults(tmp_path):
    assert read_settings(tmp_path / "pyproject.toml") == Settings()
    assert read_settings(write(tmp_path, "")) == Settings()


def test_paths_are_the_projects(tmp_path):
    (tmp_path / "models.toml").touch()
    found = read_settings(
        write(
            tmp_path,
            "[tool.tinyablation]\nmodels = 'models.toml'\nreports = 'out'\nsnapshots = true\n"
            "conditions = { ioi = 'data/ioi.jsonl' }\n",
        )
    )
    assert found.models == tmp_path / "models.toml" and found.reports == tmp_path / "out"
    assert found.conditions == {"ioi": tmp_path / "data" / "ioi.jsonl"}
    assert found.snapshots is True and found.predictions is None


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("model = 'a'", "unknown key 'model'; did you mean 'models'?"),
        ("predictions = 'nowhere.toml'", "predictions = 'nowhere.toml': no such file"),
        ("snapshots = 'yes'", "snapshots = 'yes': Input should be a valid boolean"),
        ("reports = 3", "reports = 3: give a path as text"),
        ("conditions = ['ioi.jsonl']", "conditions = ['ioi.jsonl']: Input should be a valid dict"),
        ("conditions = { ioi = 3 }", "conditions.ioi = 3: give a path as text"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, table, complaint):
    path = write(tmp_path, f"[tool.tinyablation]\n{table}\n")
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    assert complaint in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_another_kind_of_table_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="must be a table"):
        read_settings(write(tmp_path, "[tool]\ntinyablation = 3\n"))
