"""The command line: builds, refusals, and what is left of an earlier build.

Run: pytest tests/test_main.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.organisms.tokenizer import build_tokenizer
from tests.small_tokenizers import byte_level
from tinyablation.__main__ import main
from tinyablation.corpora.examples import BINDING, CONDITIONS, load_corpus, load_split
from tinyablation.corpora.knowledge import load_knowledge

ROOT = Path(__file__).parents[1]
KNOWLEDGE = ROOT / "corpora" / "knowledge"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers") / "tiny"
    build_tokenizer(load_knowledge(KNOWLEDGE)).save_pretrained(folder)
    return folder


def build(*options: object) -> int:
    return main(["corpora", "build", "--knowledge", str(KNOWLEDGE), *map(str, options)])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said of an error: one line on stderr, and nothing beside it."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("arguments", [[], ["corpora"], ["corpora", "build"], ["corpora", "adopt"]])
def test_help_is_given_for_every_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    assert f"usage: {' '.join(['python -m tinyablation', *arguments])}" in capsys.readouterr().out


def test_the_options_and_their_defaults_stand_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["corpora", "build", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for option in ("--tokenizer PATH_OR_ID", "--name", "--output", "--knowledge", "--seed"):
        assert option in said
    for default in ("default: corpora", "default: corpora/knowledge", "default: 0"):
        assert default in said


@pytest.mark.parametrize(
    "arguments", [[], ["corpora"], ["corpora", "build"], ["corpora", "build", "--tokenizer"]]
)
def test_an_incomplete_command_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_build_writes_the_committed_corpora_and_says_what_it_dropped(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--output", tmp_path / "corpora")
    assert build("--tokenizer", tokenizer, *where, "--world", "embedded") == 0
    said = capsys.readouterr().out.splitlines()
    folder = tmp_path / "corpora" / "tiny"
    assert said[0] == str(folder)
    assert "  facts: 388 examples" in said
    assert "    dropped 1: successor: no partner" in said
    assert "  binding: 256 examples" in said
    for condition in (*CONDITIONS, BINDING):
        corpus = load_corpus(folder / f"{condition}.jsonl")
        split = load_split(folder / f"{condition}.split.json", corpus)
        assert corpus.tokenizer == "tiny" and split.seed == 0
        committed = load_corpus(ROOT / "corpora" / "tiny" / f"{condition}.jsonl")
        assert corpus == committed
    # The manifest too: it names neither the machine nor the time.
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    committed_files = {path.name: path.read_bytes() for path in (ROOT / "corpora/tiny").iterdir()}
    assert files == committed_files and len(files) == 2 * (len(CONDITIONS) + 1) + 1


@pytest.mark.slow
def test_a_condition_with_too_few_words_is_skipped_and_the_others_are_written(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = Path(shutil.copytree(KNOWLEDGE, tmp_path / "knowledge"))
    table = tables / "binding.toml"
    text = table.read_text(encoding="utf-8")
    first = '"bakery", "bank", "church", "farm", "field", "forest", "heart", "hospital",'
    assert first in text
    table.write_text(text.replace(first, ""), encoding="utf-8")
    shutil.copytree(ROOT / "corpora" / "tiny", tmp_path / "tiny")  # of an earlier build
    assert build("--tokenizer", tokenizer, "--output", tmp_path, "--knowledge", tables) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        "  binding: skipped, 96 prompts are left, 200 are wanted: 8 of 12 adjectives and 9 of 46 "
        "nouns are one token" in said
    )
    names = {path.name.split(".")[0] for path in (tmp_path / "tiny").iterdir()}
    assert names == {*CONDITIONS, "manifest"}
    made = json.loads((tmp_path / "tiny" / "manifest.json").read_bytes())["conditions"]
    reason = (
        "96 prompts are left, 200 are wanted: 8 of 12 adjectives and 9 of 46 nouns are one token"
    )
    assert made[BINDING] == {"examples": 0, "refused": reason}


def test_an_earlier_build_stays_when_a_new_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "corpora" / "few"
    earlier.mkdir(parents=True)
    (earlier / "facts.jsonl").write_text("of an earlier build\n", encoding="utf-8")
    byte_level([" Paris", " Rome"]).save_pretrained(tmp_path / "few")
    assert build("--tokenizer", tmp_path / "few", "--output", tmp_path / "corpora") == 2
    said = capsys.readouterr()
    assert said.out == ""
    # The one error of more than one line: the reasons follow, one each.
    first, *reasons = said.err.splitlines()
    assert first == "error: few: of no condition 200 prompts are left. What was dropped:"
    assert reasons[0].startswith("  facts: skipped, 32 prompts are left, 200 are wanted; ")
    assert "    dropped 28: capital: the answer is more than one token" in reasons
    assert [path.name for path in earlier.iterdir()] == ["facts.jsonl"]
    assert (earlier / "facts.jsonl").read_text(encoding="utf-8") == "of an earlier build\n"


def test_a_missing_tokenizer_folder_is_said_at_once(tmp_path: Path) -> None:
    """Before transformers is imported, which takes seconds, and before the hub is asked."""
    code = (
        "import sys; from tinyablation.__main__ import main; "
        "status = main(sys.argv[1:]); assert 'transformers' not in sys.modules; sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "corpora", "build", "--tokenizer", "./nowhere"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: './nowhere': no such folder; name a folder or a hub id\n"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_table_is_said_in_one_line(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--tokenizer", tokenizer, "--knowledge", tmp_path, "--output", tmp_path)
    assert build(*given) == 2
    assert "natural: no such folder of knowledge tables" in one_line(capsys)
    assert build(*given, "--world", "embedded") == 2
    assert "facts.toml: cannot be read" in one_line(capsys)


def test_a_negative_seed_is_refused(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--tokenizer", tokenizer, "--output", tmp_path, "--seed", -1) == 2
    assert "--seed -1: give 0 or more" in one_line(capsys)


@pytest.mark.parametrize("name", [".", "..", ".hidden", "../elsewhere", "a/b", "a\\b"])
def test_a_name_that_is_a_path_is_refused(
    name: str, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build("--tokenizer", tokenizer, "--output", tmp_path, "--name", name) == 2
    assert "give the name of a folder, not a path" in one_line(capsys)


def test_a_folder_that_is_not_there_cannot_be_adopted(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    assert main(["corpora", "adopt", str(nowhere), "--tokenizer", str(tokenizer)]) == 2
    assert f"{nowhere}: no such folder" in one_line(capsys)


def test_the_folder_one_stands_in_gives_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ "." has no name of its own: its corpora would lie in the output folder itself."""
    byte_level([" Paris", " Rome"]).save_pretrained(tmp_path / "few")
    monkeypatch.chdir(tmp_path / "few")
    assert build("--tokenizer", ".", "--output", tmp_path / "corpora") == 2
    assert capsys.readouterr().err.startswith("error: few: of no condition ")
