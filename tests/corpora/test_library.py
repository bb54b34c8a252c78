"""Corpora picked by a tokenizer's content, and built once where there are none.

Run: pytest tests/corpora/test_library.py [--real-tokenizers DIR]
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.organisms.tokenizer import build_tokenizer
from tests.small_tokenizers import byte_level, save_tokenizer
from tinyablation.__main__ import main
from tinyablation.corpora.corpus_folder import BUILDER, Shelf, adopt, knowledge_hash, natural_hash
from tinyablation.corpora.examples import BINDING, CONDITIONS, CorpusError, load_corpus
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.knowledge import KnowledgeError, load_knowledge
from tinyablation.corpora.library import SEED, Library
from tinyablation.corpora.natural import NATURAL
from tinyablation.corpora.tokenisation import TokenisationError, load_tokenizer
from tinyablation.corpora.tokenizer_fingerprint import fingerprint
from tinyablation.corpora.world import load_world
from tinyablation.files.manifests import MANIFEST

ROOT = Path(__file__).parents[2]
CORPORA = ROOT / "corpora"
KNOWLEDGE = CORPORA / "knowledge"
ORGANISMS = sorted((ROOT / "fixtures" / "organisms").glob("tiny-*"))
EVERYTHING = (*CONDITIONS, BINDING)

# A process that gets ready, waits for a file, then asks for a corpus and says what it was told.
ASK = """
import sys, time
from pathlib import Path
import transformers
from tinyablation.corpora.library import Library
ready, go, root, knowledge, cache, tokenizer = map(Path, sys.argv[1:7])
ready.touch()
while not go.exists():
    time.sleep(0.01)
said = []
library = Library(root, knowledge, cache, say=said.append)
corpus, split = library.corpus(tokenizer, "facts", "asked")
print(len(said), corpus.content_hash, split.content_hash)
"""
# A builder that is killed when the second corpus is to be written.
DIE = """
import os, sys
from pathlib import Path
from tinyablation.corpora import corpus_folder as shelves
from tinyablation.corpora.library import Library
written = []
write = shelves.write_corpus
def killed(folder, corpus, split):
    if written:
        os._exit(9)
    written.append(corpus)
    write(folder, corpus, split)
shelves.write_corpus = killed
root, knowledge, cache, tokenizer = map(Path, sys.argv[1:5])
Library(root, knowledge, cache).corpus(tokenizer, "facts", "killed")
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded tokenizer with one token more: no committed corpora are for it."""
    tokenizer = build_tokenizer(load_knowledge(KNOWLEDGE))
    tokenizer.add_tokens(["<one more>"])
    return save_tokenizer(tokenizer, tmp_path_factory.mktemp("tokenizers") / "other")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows the answers of six relations: too few for counterfactual prompts, enough for others."""
    world = load_world(KNOWLEDGE / NATURAL)
    names = ("capital", "young", "material", "past_tense", "comparative", "agent")
    words = [f" {fact.answer}" for name in names for fact in world.facts(name)]
    folder = tmp_path_factory.mktemp("tokenizers") / "few"
    return save_tokenizer(byte_level([*dict.fromkeys(words), " yes", " no"]), folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpora folder with no corpora in it."""
    folder = tmp_path / "corpora"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory, other: Path) -> Path:
    """A cache in which the corpora of `other` were built."""
    cache = tmp_path_factory.mktemp("cache")
    empty = tmp_path_factory.mktemp("corpora")
    Library(empty, KNOWLEDGE, cache).corpus(other, "facts", "first")
    return cache


def copied(cache: Path, target: Path) -> Path:
    return Path(shutil.copytree(cache, target))


def shelf_in(cache: Path) -> Path:
    (folder,) = (path for path in cache.iterdir() if not path.name.startswith("."))
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return found


def rewritten(folder: Path, **fields: Any) -> None:
    text = json.dumps({**manifest_of(folder), **fields})
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The committed ones ------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ORGANISMS, ids=lambda folder: folder.name)
def test_every_embedded_model_has_the_same_corpora(folder: Path, tmp_path: Path) -> None:
    library = Library(CORPORA, cache=tmp_path / "cache")
    for condition in EVERYTHING:
        corpus, split = library.corpus(folder, condition, folder.name)
        assert (corpus.tokenizer, corpus.condition) == ("tiny", condition)
        assert corpus == load_corpus(CORPORA / "tiny" / f"{condition}.jsonl")
        assert split.data_hash == corpus.content_hash
    assert library.conditions(folder, folder.name) == EVERYTHING
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "mistral", "llama2"])
def test_the_real_tokenizers_have_theirs(name: str, real_tokenizers: Path, tmp_path: Path) -> None:
    library = Library(CORPORA, cache=tmp_path / "cache")
    assert library.shelf(real_tokenizers / name, "asked").folder == CORPORA / name
    for condition in EVERYTHING:
        assert library.corpus(real_tokenizers / name, condition, "asked")[0].tokenizer == name
    assert not (tmp_path / "cache").exists()


def test_a_renamed_folder_is_found_all_the_same(tmp_path: Path) -> None:
    shutil.copytree(CORPORA / "tiny", tmp_path / "renamed")
    corpus, _ = Library(tmp_path).corpus(ORGANISMS[0], "facts", "asked")
    assert corpus.tokenizer == "renamed"


def test_of_two_folders_for_one_tokenizer_the_one_built_here_comes_first(tmp_path: Path) -> None:
    """The other gives what it lacks, and whatever both have is said."""
    for name in ("another", "tiny"):
        shutil.copytree(CORPORA / "tiny", tmp_path / name)
    made = manifest_of(tmp_path / "tiny")["conditions"]
    rewritten(tmp_path / "tiny", conditions={name: made[name] for name in ("facts", "logic")})
    kept = {name: made[name] for name in ("facts", "negation")}
    adopted = {"tokenizer": "another", "builder": None, "knowledge": None, "seed": None}
    rewritten(tmp_path / "another", conditions=kept, **adopted)
    library = Library(tmp_path)
    for condition, folder in (("facts", "tiny"), ("logic", "tiny"), ("negation", "another")):
        assert library.corpus(ORGANISMS[0], condition, "asked")[0].tokenizer == folder
    assert library.conditions(ORGANISMS[0], "asked") == ("facts", "negation", "logic")
    assert library.doubled() == (
        f"{tmp_path.name}/tiny and {tmp_path.name}/another are for the same tokenizer: facts of "
        "tiny is used",
    )
    with pytest.raises(CorpusError, match="tiny: has no corpus 'binding'"):
        library.corpus(ORGANISMS[0], BINDING, "asked")
    # A copy is built, too, but not called as its tokenizer was.
    shutil.copytree(CORPORA / "tiny", tmp_path / "a copy")
    assert Library(tmp_path).corpus(ORGANISMS[0], "facts", "asked")[0].tokenizer == "tiny"
    assert Library(CORPORA).doubled() == ()


def test_corpora_without_a_manifest_are_not_passed_over(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CORPORA / "tiny", tmp_path / "mine"))
    (folder / MANIFEST).unlink()
    with pytest.raises(CorpusError, match="mine: has corpora but no manifest.json.*corpora adopt"):
        Library(tmp_path, KNOWLEDGE).corpus(ORGANISMS[0], "facts", "asked")


def test_a_condition_that_was_never_made_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CORPORA / "tiny", tmp_path / "mine"))
    conditions = manifest_of(folder)["conditions"]
    rewritten(folder, conditions={"facts": conditions["facts"]})
    library = Library(tmp_path)
    assert library.conditions(ORGANISMS[0], "asked") == ("facts",)
    assert library.lacks(ORGANISMS[0], "facts", "asked") is None
    with pytest.raises(CorpusError, match="mine: has no corpus 'binding'; there are: facts") as no:
        library.corpus(ORGANISMS[0], BINDING, "asked")
    assert library.lacks(ORGANISMS[0], BINDING, "asked") == str(no.value)


@pytest.mark.parametrize("file", ["facts.jsonl", "facts.split.json"])
@pytest.mark.slow
def test_a_committed_corpus_that_was_changed_is_refused(file: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CORPORA / "tiny", tmp_path / "mine"))
    # Another seed's corpus and split fit together: only the manifest can tell.
    assert main(build_options(ORGANISMS[0], tmp_path / "seed", "--seed", 1)) == 0
    other_seed = tmp_path / "seed" / ORGANISMS[0].name
    if file == "facts.jsonl":
        shutil.copy(other_seed / file, folder / file)
        shutil.copy(other_seed / "facts.split.json", folder / "facts.split.json")
    else:
        split = json.loads((folder / file).read_bytes())
        split["discovery"], split["confirmation"] = split["confirmation"], split["discovery"]
        (folder / file).write_text(json.dumps(split), encoding="utf-8")
    shutil.rmtree(tmp_path / "seed")
    library = Library(tmp_path)
    with pytest.raises(CorpusError, match=f"mine/{file}: has content .* it was changed"):
        library.corpus(ORGANISMS[0], "facts", "asked")
    assert library.corpus(ORGANISMS[0], "logic", "asked")


def test_newlines_of_another_system_change_nothing(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CORPORA / "tiny", tmp_path / "mine"))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    corpus, _ = Library(tmp_path).corpus(ORGANISMS[0], "facts", "asked")
    assert corpus.content_hash == load_corpus(CORPORA / "tiny" / "facts.jsonl").content_hash


def test_a_root_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere: no such folder of corpora"):
        Library(tmp_path / "nowhere").corpus(ORGANISMS[0], "facts", "asked")


def test_a_folder_without_a_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenisationError, match="no tokenizer"):
        Library(CORPORA).corpus(tmp_path, "facts", "asked")


ZERO = "0" * 64
HOSTILE: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "Invalid JSON"),
    "not UTF-8": (b"\xff\xfe", "Invalid JSON"),
    "nested too deeply": ("[" * 100_000, "Invalid JSON"),
    "a list": ("[]", "object"),
    "nothing": ("{}", "field 'tokenizer': Field required"),
    "a path for a name": ({"tokenizer": "../../etc"}, "field 'tokenizer': String should match"),
    "a hidden name": ({"tokenizer": ".ssh"}, "field 'tokenizer': String should match"),
    "a backslash": ({"tokenizer": "a\\b"}, "field 'tokenizer': String should match"),
    "a line break": ({"tokenizer": "a\nb"}, "field 'tokenizer': String should match"),
    "a condition that is a path": (
        {"conditions": {"../facts": {"examples": 1, "refused": "x"}}},
        r"field 'conditions.\.\./facts.*is not a condition; there are: facts",
    ),
    "no condition": ({"conditions": {}}, "field 'conditions'"),
    "a hash that is none": ({"fingerprint": "x" * 64}, "field 'fingerprint': String should match"),
    "another layout": ({"layout": 2}, "field 'layout': Input should be 1"),
    "an unknown field": ({"sede": 1}, "field 'sede': Extra inputs"),
    "text for a number": ({"vocabulary": "9"}, "field 'vocabulary': Input should be a valid int"),
    "made and refused": (
        {"conditions": {"facts": {"examples": 1, "corpus": ZERO, "split": ZERO, "refused": "few"}}},
        "either corpus and split, or refused, must be given",
    ),
    "neither": ({"conditions": {"facts": {"examples": 1}}}, "either corpus and split, or refused"),
    "no split": (
        {"conditions": {"facts": {"examples": 1, "corpus": ZERO}}},
        "either corpus and split, or refused",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_manifest_is_refused_with_file_and_field(what: str, tmp_path: Path) -> None:
    content, message = HOSTILE[what]
    folder = Path(shutil.copytree(CORPORA / "tiny", tmp_path / "mine"))
    if isinstance(content, dict):
        rewritten(folder, **content)
    else:
        content = content if isinstance(content, bytes) else content.encode()
        (folder / MANIFEST).write_bytes(content)
    with pytest.raises(CorpusError, match=f"mine/manifest.json: .*{message}") as caught:
        Library(tmp_path, KNOWLEDGE).corpus(ORGANISMS[0], "facts", "asked")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


# Built on the fly --------------------------------------------------------------------------------


def build_options(tokenizer: Path, output: Path, *options: object) -> list[str]:
    given = ["corpora", "build", "--knowledge", KNOWLEDGE, "--tokenizer", tokenizer]
    return [str(option) for option in (*given, "--output", output, *options)]


@pytest.mark.slow
def test_what_is_built_on_the_fly_is_what_the_command_builds(
    other: Path, root: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    library = Library(root, KNOWLEDGE, tmp_path / "cache", say=said.append)
    corpus, split = library.corpus(other, "facts", "model-x")
    folder = shelf_in(tmp_path / "cache")
    assert said == [
        f"model-x: no corpora under {root} are for its tokenizer; building them once, into {folder}"
    ]
    assert folder.name == f"{fingerprint(other)[:16]}-{natural_hash(KNOWLEDGE)[:8]}"
    assert (corpus.tokenizer, split.seed) == ("model-x", SEED)
    assert library.conditions(other, "model-x") == EVERYTHING
    assert main(build_options(other, root, "--name", "model-x")) == 0
    assert contents(folder) == contents(root / "model-x")
    assert len(contents(folder)) == 2 * len(EVERYTHING) + 1
    # From now on those of the project are given, and nothing is built.
    again = Library(root, KNOWLEDGE, tmp_path / "no cache", say=said.append)
    assert again.corpus(other, "facts", "model-y") == (corpus, split)
    assert len(said) == 1 and not (tmp_path / "no cache").exists()


@pytest.mark.slow
def test_what_was_built_is_found_by_every_model_of_the_tokenizer(
    other: Path, root: Path, cached: Path
) -> None:
    before = contents(shelf_in(cached))
    library = Library(root, KNOWLEDGE, cached, say=pytest.fail)
    corpus, _ = library.corpus(other, "logic", "second")
    assert corpus.tokenizer == "first"
    assert contents(shelf_in(cached)) == before


def test_the_cache_lies_beside_the_hubs(other: Path, root: Path, cached: Path) -> None:
    """Asked in a process of its own: HF_HOME is read when huggingface_hub is imported."""
    key = shelf_in(cached).name
    home = root.parent / "home"
    shutil.copytree(shelf_in(cached), home / "assets" / "tinyablation" / "corpora" / key)
    code = (
        "import sys; from pathlib import Path; from tinyablation.corpora.library import Library; "
        "library = Library(Path(sys.argv[1]), Path(sys.argv[2]), say=sys.exit); "
        "print(library.shelf(Path(sys.argv[3]), 'asked').folder); "
        "assert 'torch' not in sys.modules"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(KNOWLEDGE), str(other)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()) == home / "assets" / "tinyablation" / "corpora" / key


DAMAGES: dict[str, Any] = {
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "a manifest cut short": lambda folder: (folder / MANIFEST).write_bytes(
        (folder / MANIFEST).read_bytes()[:200]
    ),
    "another tokenizer": lambda folder: rewritten(folder, fingerprint=ZERO),
    "other knowledge": lambda folder: rewritten(folder, knowledge=ZERO),
    "no knowledge": lambda folder: rewritten(folder, knowledge=None),
    "another builder": lambda folder: rewritten(folder, builder=BUILDER + 1),
    "another seed": lambda folder: rewritten(folder, seed=SEED + 1),
    "a condition less": lambda folder: rewritten(
        folder, conditions={"facts": manifest_of(folder)["conditions"]["facts"]}
    ),
    "a corpus gone": lambda folder: (folder / "logic.jsonl").unlink(),
    "a corpus cut short": lambda folder: (folder / "logic.jsonl").write_bytes(
        (folder / "logic.jsonl").read_bytes()[:5000]
    ),
    "a split emptied": lambda folder: (folder / "logic.split.json").write_bytes(b""),
    "a folder for a corpus": lambda folder: (
        (folder / "logic.jsonl").unlink(),
        (folder / "logic.jsonl").mkdir(),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(each, marks=[pytest.mark.nightly] if number % 3 else [])
        for number, each in enumerate(DAMAGES)
    ],
)
def test_what_is_not_whole_in_the_cache_is_built_again(
    what: str, other: Path, root: Path, cached: Path, tmp_path: Path
) -> None:
    cache = copied(cached, tmp_path / "cache")
    folder = shelf_in(cache)
    wanted = contents(folder)
    DAMAGES[what](folder)
    said: list[str] = []
    library = Library(root, KNOWLEDGE, cache, say=said.append)
    assert library.corpus(other, "facts", "first")
    assert len(said) == 1 and contents(folder) == wanted


@pytest.mark.slow
def test_changed_knowledge_has_a_place_of_its_own(
    other: Path, root: Path, cached: Path, tmp_path: Path
) -> None:
    cache = copied(cached, tmp_path / "cache")
    tables = Path(shutil.copytree(KNOWLEDGE, tmp_path / "knowledge"))
    facts = tables / NATURAL / "geography.toml"
    text = facts.read_text(encoding="utf-8")
    facts.write_text(f"# a comment more\n{text}", encoding="utf-8")
    (tables / "facts.toml").unlink()  # of the embedded world
    assert natural_hash(tables) == natural_hash(KNOWLEDGE)
    Library(root, tables, cache, say=pytest.fail).corpus(other, "facts", "asked")
    assert '"Paris"' in text
    facts.write_text(text.replace('"Paris"', '"Parys"'), encoding="utf-8")
    assert natural_hash(tables) != natural_hash(KNOWLEDGE)
    said: list[str] = []
    corpus, _ = Library(root, tables, cache, say=said.append).corpus(other, "facts", "asked")
    assert len(said) == 1
    assert not any(" Paris" in (row.target, row.foil) for row in corpus.examples)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("table", ["facts", "classes", "templates", "binding"])
def test_the_knowledge_hash_is_of_every_table(table: str, tmp_path: Path) -> None:
    tables = Path(shutil.copytree(KNOWLEDGE, tmp_path / "knowledge"))
    changes = {
        "facts": ('"Paris"', '"Rome"'),
        "classes": ("feathers", "down"),
        "templates": ("something", "anything"),
        "binding": ('"bakery"', '"brewery"'),
    }
    path = tables / f"{table}.toml"
    text = path.read_text(encoding="utf-8")
    before, after = changes[table]
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    assert knowledge_hash(tables) != knowledge_hash(KNOWLEDGE)
    (tables / "lexicons.toml").write_text("", encoding="utf-8")  # no corpus is built from it
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert knowledge_hash(tables) == knowledge_hash(KNOWLEDGE)


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("natural/geography", '"Paris"', '"Parys"'),
        ("natural/frames", "In the novel", "In that novel"),
        ("natural/nonces", "names = [", 'names = ["Umbrell", '),
        ("binding", '"bakery"', '"brewery"'),
    ],
)
def test_the_hash_of_the_natural_world_is_of_every_table(
    table: str, before: str, after: str, tmp_path: Path
) -> None:
    tables = Path(shutil.copytree(KNOWLEDGE, tmp_path / "knowledge"))
    path = tables / f"{table}.toml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    assert natural_hash(tables) != natural_hash(KNOWLEDGE)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    (tables / "classes.toml").write_text("", encoding="utf-8")  # of the embedded world
    assert natural_hash(tables) == natural_hash(KNOWLEDGE)


def test_the_order_of_facts_is_part_of_the_knowledge(tmp_path: Path) -> None:
    """It decides which facts become pairs."""
    tables = Path(shutil.copytree(KNOWLEDGE, tmp_path / "knowledge"))
    path = tables / "binding.toml"
    text = path.read_text(encoding="utf-8")
    assert '"bakery", "bank"' in text
    path.write_text(text.replace('"bakery", "bank"', '"bank", "bakery"'), encoding="utf-8")
    assert knowledge_hash(tables) != knowledge_hash(KNOWLEDGE)


def test_missing_knowledge_is_said_where_something_must_be_built(
    other: Path, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        KnowledgeError, match="knowledge/natural: no such folder of knowledge tables"
    ):
        Library(root, cache=tmp_path / "cache").corpus(other, "facts", "asked")
    shutil.copytree(CORPORA / "tiny", root / "tiny")
    assert Library(root).corpus(ORGANISMS[0], "facts", "asked")  # and not where nothing must


@pytest.mark.parametrize("what", ["a file", "a folder nobody can write"])
@pytest.mark.slow
def test_a_cache_that_cannot_be_written_says_what_to_do(
    what: str, other: Path, root: Path, tmp_path: Path
) -> None:
    if what == "a file":
        cache = tmp_path / "file" / "cache"
        (tmp_path / "file").write_text("", encoding="utf-8")
    else:
        cache = Path("/proc/cache") if os.geteuid() == 0 else tmp_path / "locked" / "cache"
        if os.geteuid() != 0:
            (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(CorpusError, match="model-x: no corpora under") as caught:
        Library(root, KNOWLEDGE, cache, say=pytest.fail).corpus(other, "facts", "model-x")
    message = str(caught.value)
    assert "set HF_HOME to a folder that can be written" in message and "\n" not in message
    command = f"corpora build --tokenizer {other} --name model-x --output {root}"
    assert f"`python -m tinyablation {command}`" in message
    # What it says to do, does.
    assert main([*command.split(), "--knowledge", str(KNOWLEDGE)]) == 0
    assert Library(root, KNOWLEDGE, cache).corpus(other, "facts", "model-x")


def test_a_cache_that_cannot_be_written_is_read(
    other: Path, root: Path, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it has what is wanted no lock is taken and nothing is written."""
    cache = copied(cached, tmp_path / "cache")
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: pytest.fail("locked"))
    before = sorted(path.name for path in cache.iterdir())
    assert Library(root, KNOWLEDGE, cache).corpus(other, "facts", "asked")
    assert sorted(path.name for path in cache.iterdir()) == before


@pytest.mark.slow
def test_a_model_name_that_cannot_name_a_folder_leaves_nothing(
    other: Path, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=r"tokenizer '\.\./x': String should match"):
        Library(root, KNOWLEDGE, tmp_path / "cache").corpus(other, "facts", "../x")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


# Too few -----------------------------------------------------------------------------------------


def test_too_few_is_said_each_time_and_built_once(few: Path, root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    messages = []
    for _ in range(2):  # the second finds what the first wrote
        library = Library(root, KNOWLEDGE, tmp_path / "cache", say=said.append)
        for _ in range(2):
            with pytest.raises(TooFewPrompts) as caught:
                library.corpus(few, "counterfactual", "few")
            messages.append(str(caught.value))
        assert library.conditions(few, "few") == ("facts", "negation", "logic")
        assert library.lacks(few, "counterfactual", "few") == messages[-1]
        assert len(library.corpus(few, "logic", "few")[0].examples) >= 200
    assert len(said) == 1 and len(set(messages)) == 1
    assert re.fullmatch(
        r"few, counterfactual: \d+ prompts are left, 200 are wanted; (\d+) were dropped: \1 \(no "
        r"pair of its facts can be asked\)",
        messages[0],
    )
    made = manifest_of(shelf_in(tmp_path / "cache"))["conditions"]
    assert set(made) == set(EVERYTHING)
    assert made["counterfactual"] == {"examples": 0, "refused": messages[0].split(": ", 1)[1]}
    # The tokenizer is refused, whoever asks.
    with pytest.raises(TooFewPrompts, match=r"^another, counterfactual: \d+ prompts are left"):
        library.corpus(few, "counterfactual", "another")
    names = {path.name for path in shelf_in(tmp_path / "cache").iterdir()}
    assert "logic.jsonl" in names and "counterfactual.jsonl" not in names


def test_a_tokenizer_of_no_use_is_refused_for_every_condition(root: Path, tmp_path: Path) -> None:
    folder = save_tokenizer(byte_level([" Paris", " Rome"]), tmp_path / "two words")
    for _ in range(2):
        library = Library(root, KNOWLEDGE, tmp_path / "cache")
        assert library.conditions(folder, "two") == ()
        for condition in EVERYTHING:
            with pytest.raises(TooFewPrompts, match=f"two, {condition}: .* 200 are wanted") as few:
                library.corpus(folder, condition, "two")
            assert "\n" not in str(few.value)
    with pytest.raises(
        TooFewPrompts, match=r"facts: 32 prompts .*\(the answer is more than one tok"
    ):
        library.corpus(folder, "facts", "two")
    # Prompts are lost with the facts they are made of, and say so.
    with pytest.raises(TooFewPrompts, match=r"logic: .* \d+ \(no pair of its facts can be asked"):
        library.corpus(folder, "logic", "two")


# Several processes -------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_process_builds_and_the_other_waits(other: Path, root: Path, tmp_path: Path) -> None:
    cache, go = tmp_path / "cache", tmp_path / "go"
    ready = [tmp_path / f"ready {number}" for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK]
            + [str(path) for path in (mark, go, root, KNOWLEDGE, cache, other)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mark in ready
    ]
    deadline = time.monotonic() + 60
    while not all(mark.exists() for mark in ready) and time.monotonic() < deadline:
        time.sleep(0.05)
    go.touch()
    answers = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        answers.append(out.split())
    assert sorted(answer[0] for answer in answers) == ["0", "1"]  # lines said: one has built
    assert answers[0][1:] == answers[1][1:]
    assert [path for path in cache.iterdir() if path.is_dir()] == [shelf_in(cache)]


@pytest.mark.slow
def test_a_killed_builder_leaves_nothing_that_is_believed(
    other: Path, root: Path, cached: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", DIE, *map(str, (root, KNOWLEDGE, cache, other))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (9, "")
    (left,) = (path for path in cache.iterdir() if path.is_dir())
    assert left.name.endswith(".unfinished")
    assert sorted(path.name for path in left.iterdir()) == ["facts.jsonl", "facts.split.json"]
    said: list[str] = []
    assert Library(root, KNOWLEDGE, cache, say=said.append).corpus(other, "facts", "first")
    assert len(said) == 1
    assert [path for path in cache.iterdir() if path.is_dir()] == [shelf_in(cache)]
    assert contents(shelf_in(cache)) == contents(shelf_in(cached))


@pytest.mark.slow
def test_a_build_that_fails_leaves_nothing(
    other: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyablation.corpora.corpus_folder.write_corpus", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Library(root, KNOWLEDGE, tmp_path / "cache").corpus(other, "facts", "asked")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


# Corpora made elsewhere --------------------------------------------------------------------------


def test_corpora_made_elsewhere_are_adopted_as_they_are(
    other: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = root / "study"
    folder.mkdir()
    text = (CORPORA / "tiny" / "facts.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    handover = [
        {name: row[name] for name in ("clean", "corrupt", "target", "foil")} for row in rows[:6]
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in handover)
    (folder / "facts.jsonl").write_text(lines, encoding="utf-8")
    split = {"seed": 13, "data_hash": "study", "train": [0, 1, 2], "val": [], "test": [3, 4, 5]}
    (folder / "facts.split.json").write_text(json.dumps(split), encoding="utf-8")
    assert main(["corpora", "adopt", str(folder), "--tokenizer", str(other)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder), "  facts: 6 examples"]
    library = Library(root)
    corpus, halves = library.corpus(other, "facts", "asked")
    assert (corpus.tokenizer, len(corpus.examples), halves.seed) == ("study", 6, 13)
    manifest = Shelf.at(folder).manifest
    assert (manifest.seed, manifest.knowledge, manifest.builder) == (None, None, None)
    assert library.conditions(other, "asked") == ("facts",)
    # A change is seen.
    (folder / "facts.jsonl").write_text(lines.replace(" is", " was"), encoding="utf-8")
    with pytest.raises(CorpusError, match="study/facts.jsonl: has content"):
        library.corpus(other, "facts", "asked")


def test_nothing_to_adopt_is_said(other: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="has no corpus; it needs at least one of facts.jsonl, "):
        adopt(tmp_path, load_tokenizer(str(other)))
    assert list(tmp_path.iterdir()) == []
