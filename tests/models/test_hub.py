"""Models from the hub: the real client, in processes of its own, against a hub on this machine.

Run: pytest tests/models/test_hub.py -q (under 40 s on one core)
"""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback_hub import FOREVER, LoopbackHub, Request, files_of, make_checkpoint
from tests.small_tokenizers import byte_level, save_tokenizer
from tinyablation.models.checkpoint import conversion_command, weight_files

pytestmark = pytest.mark.slow  # sessions, servers or processes of their own: make slow

ROOT = Path(__file__).parents[2]
LOADED = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
CHUNK = 10 * 2**20  # bytes that the client keeps at once: a download is resumed at a multiple

# Fetches what it is told, one after the other, and says what came of it. Warnings are errors, as in
# a test session; what is heavy must not have been imported.
FETCH = """
import json, sys
from tinyablation.errors import PickledWeights, WeightsMissing
from tinyablation.models.hub import fetch
exec(sys.argv[2])
for arguments in json.loads(sys.argv[1]):
    try:
        folder, commit = fetch("m", **arguments)
        print(json.dumps({"folder": str(folder), "commit": commit}))
    except WeightsMissing as error:
        print(json.dumps({"error": str(error), "pickled": isinstance(error, PickledWeights)}))
assert not {"torch", "transformers"} & set(sys.modules)
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(byte_level(["Paris", "is"]), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def single(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 in one file."""
    return make_checkpoint(tmp_path_factory.mktemp("single"), "gpt2", tokenizer)


@pytest.fixture(scope="module")
def sharded(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in three files."""
    return make_checkpoint(tmp_path_factory.mktemp("sharded"), "llama", tokenizer, shards=3)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | bytes]:
    """Two and a half chunks of weights: bytes only, since nothing here reads them."""
    path = tmp_path_factory.mktemp("large") / "weights"
    path.write_bytes(bytes(range(256)) * (CHUNK // 256 * 5 // 2))
    return {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": path}


def start(
    environment: dict[str, str], *calls: dict[str, Any], before: str = ""
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FETCH, json.dumps(calls), before],
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def fetch_all(
    environment: dict[str, str], *calls: dict[str, Any], before: str = ""
) -> list[dict[str, Any]]:
    return result(start(environment, *calls, before=before))


def line(outcome: dict[str, Any], *said: str) -> str:
    """The one line a failure is told in, which must hold all of `said`."""
    text: str = outcome["error"]
    assert text.startswith("model 'm': ") and "\n" not in text, text
    assert not re.search(r"\w(Error|Exception)\b|Request ID|Errno", text), text
    assert len(re.findall(r"https?://", text)) <= 1, text  # at most one address: where to go
    for part in said:
        assert part in text, text
    return text


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept(folder: str) -> dict[str, str]:
    """Names and hashes of what a snapshot has."""
    return {path.name: digest(path) for path in Path(folder).rglob("*") if path.is_file()}


def first_bytes(requests: list[Request]) -> list[int]:
    return [request.first_byte for request in requests]


def test_a_model_comes_whole_and_nothing_else_comes(
    hub: LoopbackHub, single: Path, tmp_path: Path
) -> None:
    others = ["pytorch_model.bin", "consolidated.safetensors", "README.md", "training_args.bin"]
    folders = ["onnx/model.onnx", "onnx/config.json", "sub/model.safetensors"]
    commit = hub.add("a/one", {**files_of(single), **dict.fromkeys(others + folders, b"x")})
    (found,) = fetch_all(hub.environment(tmp_path, token=hub.token), {"repo": "a/one"})
    assert found["commit"] == commit
    assert kept(found["folder"]) == {path.name: digest(path) for path in single.iterdir()}
    assert set(kept(found["folder"])) == LOADED | {"model.safetensors"}
    asked = [request.path for request in hub.requests]
    assert not [path for path in asked if path.endswith(tuple(others + folders))]
    assert [r.path.count(commit) for r in hub.asked("GET", "model.safetensors")] == [1]
    # Weights lie on another host: the token is for the hub alone.
    assert {r.token for r in hub.requests if r.path.startswith("/content/")} == {None}
    assert {r.token for r in hub.requests if r.path.startswith("/api/")} == {hub.token}


def test_an_unsupported_model_is_refused_before_its_weights_come(
    hub: LoopbackHub, single: Path, tmp_path: Path
) -> None:
    config = json.loads((single / "config.json").read_text())
    named = json.dumps(config | {"architectures": ["BertForSequenceClassification"]}).encode()
    hub.add("a/bert", {**files_of(single), "config.json": named})
    program = (
        "from tinyablation.models.loading import describe; "
        "from tinyablation.models.registry import ModelEntry; "
        "describe(ModelEntry(id='m', title='M', repo='a/bert', family='other', variant='natural'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=hub.environment(tmp_path) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "model 'm': architecture BertForSequenceClassification is not supported" in done.stderr
    assert "GPT2LMHeadModel" in done.stderr and hub.asked("GET", "config.json")
    assert not hub.asked("GET", "model.safetensors")


REAL = {"gpt2": "gpt2", "neox": "gpt-neox", "mistral": "mistral", "llama": "llama2"}
# Fetches a model, reads a prompt of the corpora that its tokenizer picks, and says what it is.
READ = """
import json, sys
from pathlib import Path
from tinyablation.corpora.library import Library
from tinyablation.models.loading import load_model
from tinyablation.models.registry import ModelEntry
from tinyablation.corpora.tokenisation import encode_examples
entry = ModelEntry(id="m", title="M", repo=sys.argv[1], family="other", variant="natural")
loaded = load_model(entry)
corpus, _ = Library(Path("corpora")).corpus(loaded.facts.folder, "facts", "m")
first = encode_examples(loaded.tokenizer, corpus.examples[:1], loaded.bos_id)[0]
print(json.dumps([corpus.tokenizer, loaded.facts.architecture, loaded.bos_id is not None,
                  loaded.tokenizer.decode([first.target]).strip() in corpus.examples[0].target]))
"""


@pytest.mark.parametrize(("architecture", "corpora"), REAL.items())
def test_real_tokenizers_come_with_their_models_and_pick_their_corpora(
    hub: LoopbackHub, real_tokenizers: Path, architecture: str, corpora: str, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "made", architecture, real_tokenizers / corpora)
    hub.add("a/real", folder)
    done = subprocess.run(
        [sys.executable, "-c", READ, "a/real"],
        env=hub.environment(tmp_path / "home") | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    name, built, has_bos, answers = found
    assert (name, has_bos, answers) == (corpora, architecture != "neox", True)
    assert built == json.loads((folder / "config.json").read_text())["architectures"][0]


def test_what_is_there_is_found_again_without_the_network(
    hub: LoopbackHub, single: Path, sharded: Path, tmp_path: Path
) -> None:
    hub.add("a/one", single, {"step1000": sharded})
    hub.add("new/name", single)
    hub.move("name", "new/name")
    calls = [{"repo": "a/one"}, {"repo": "a/one", "revision": "step1000"}, {"repo": "name"}]
    first = fetch_all(hub.environment(tmp_path), *calls)
    shards = {path.name: digest(path) for path in sharded.iterdir()}
    assert kept(first[1]["folder"]) == shards and len(shards) == 8
    calls.append({"repo": "a/one", "revision": first[1]["commit"]})
    hub.requests.clear()
    assert fetch_all(hub.environment(tmp_path), *calls) == [*first, first[1]]
    assert fetch_all(hub.environment(tmp_path, offline=True), *calls) == [*first, first[1]]
    assert hub.requests == []


def test_a_dropped_connection_is_resumed_in_the_same_call(
    hub: LoopbackHub, large: dict[str, Path | bytes], tmp_path: Path
) -> None:
    hub.add("a/large", large)
    hub.drop("a/large", "model.safetensors", after_bytes=CHUNK + CHUNK // 2)
    (found,) = fetch_all(hub.environment(tmp_path), {"repo": "a/large"})
    weights = large["model.safetensors"]
    assert isinstance(weights, Path)
    assert digest(Path(found["folder"], "model.safetensors")) == digest(weights)
    assert first_bytes(hub.asked("GET", "model.safetensors")) == [0, CHUNK]


def test_a_connection_that_always_drops_leaves_nothing_that_looks_whole(
    hub: LoopbackHub, sharded: Path, tmp_path: Path
) -> None:
    last = weight_files(sharded, "m")[-1].name
    hub.add("a/one", sharded)
    hub.drop("a/one", last, after_bytes=1000, times=FOREVER)
    environment = hub.environment(tmp_path)
    (failed,) = fetch_all(environment, {"repo": "a/one"})
    line(failed, f"connection to {hub.url} failed", "a/one", "run again", "kept")
    assert first_bytes(hub.asked("GET", last)) == [0] * 6
    (offline,) = fetch_all(hub.environment(tmp_path, offline=True), {"repo": "a/one"})
    line(offline, "in part only", last, "HF_HUB_OFFLINE is set")
    assert not list(tmp_path.rglob("*.incomplete"))
    hub.mend()
    hub.requests.clear()
    (found,) = fetch_all(environment, {"repo": "a/one"})
    assert kept(found["folder"])[last] == digest(sharded / last)
    # Only what had not come before was asked for.
    assert [r.path.rsplit("/")[-1] for r in hub.asked("GET", ".safetensors")] == [last]


def test_a_slow_hub_is_waited_for(hub: LoopbackHub, single: Path, tmp_path: Path) -> None:
    size = (single / "model.safetensors").stat().st_size
    hub.add("a/one", single)
    hub.slow("a/one", "model.safetensors", bytes_per_second=size / 2)
    environment = hub.environment(tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="1")
    (found,) = fetch_all(environment, {"repo": "a/one"})
    assert kept(found["folder"])["model.safetensors"] == digest(single / "model.safetensors")
    assert len(hub.asked("GET", "model.safetensors")) == 1


def test_gated_and_private_models(hub: LoopbackHub, single: Path, tmp_path: Path) -> None:
    hub.add("meta/gated", single, gated="login")
    hub.add("meta/denied", single, gated="denied")
    hub.add("me/private", single, private=True)
    calls = [{"repo": repo} for repo in ("meta/gated", "meta/denied", "me/private")]
    calls.append({"repo": "me/private", "gated": True})
    gated, denied, private, hidden = fetch_all(hub.environment(tmp_path), *calls)
    for outcome, repo in ((gated, "meta/gated"), (denied, "meta/denied"), (hidden, "me/private")):
        line(outcome, f"accept its licence at {hub.url}/{repo}", "`hf auth login`", "HF_TOKEN")
    line(private, "no repository me/private", "private", "`hf auth login`")
    known = hub.environment(tmp_path, token=hub.token)
    gated, denied, private, _ = fetch_all(known, *calls)
    assert Path(gated["folder"], "model.safetensors").is_file()
    assert Path(private["folder"], "model.safetensors").is_file()
    line(denied, "your token may not read it", f"ask for access at {hub.url}/meta/denied")
    wrong = hub.environment(tmp_path / "wrong", token="hf_wrong")
    (refused,) = fetch_all(wrong, {"repo": "meta/gated"})
    line(refused, "does not accept your token", "`hf auth login`")
    # Once it is here, neither the hub nor a token is needed.
    (again,) = fetch_all(hub.environment(tmp_path, offline=True), {"repo": "meta/gated"})
    assert again == gated


def test_the_login_command_is_one_that_exists() -> None:
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "auth", "login", "--help"]
    assert subprocess.run(hf, capture_output=True, check=False).returncode == 0


def test_what_the_hub_does_not_have_is_named(
    hub: LoopbackHub, single: Path, sharded: Path, tmp_path: Path
) -> None:
    lost = weight_files(sharded, "m")[1].name
    hub.add("a/one", single)
    hub.add("a/shard", files_of(sharded, without=[lost]))
    hub.add("a/config", files_of(single, without=["config.json"]))
    hub.add("a/tokenizer", files_of(single, without=["tokenizer.json"]))
    hub.add("a/weights", files_of(single, without=["model.safetensors"]))
    index = {"model.safetensors.index.json": b"["}
    hub.add("a/index", {**files_of(single, without=["model.safetensors"]), **index})
    calls = [{"repo": f"a/{name}"} for name in ("shard", "config", "tokenizer", "weights", "index")]
    calls += [{"repo": "a/none"}, {"repo": "a/one", "revision": "v9"}, {"repo": "../../etc"}]
    outcomes = fetch_all(hub.environment(tmp_path), *calls)
    shard, config, tokenizer, weights, broken, repo, revision, bad = outcomes
    line(shard, "a/shard lacks", lost, "model.safetensors.index.json")
    line(config, "a/config has no config.json")
    line(tokenizer, "a/tokenizer has no tokenizer")
    line(weights, "a/weights has no model.safetensors")
    line(broken, "a/index cannot be loaded", "not valid JSON")
    line(repo, f"no repository a/none at {hub.url}", "`hf auth login`")
    line(revision, "a/one has no revision 'v9'", f"{hub.url}/a/one")
    line(bad, "'../../etc' is no name of a repository")
    # Known before the first of them is asked for.
    assert hub.asked("GET", ".safetensors") == []
    (repo,) = fetch_all(hub.environment(tmp_path, token=hub.token), {"repo": "a/none"})
    line(repo, "no repository a/none", "your token may not see it")


def test_names_from_the_hub_lead_nowhere(
    hub: LoopbackHub, single: Path, sharded: Path, tmp_path: Path
) -> None:
    hostile = ["../x", "a/../../config.json", "/etc/x", "..", "tokenizer.json/../x", "con fig.json"]
    hub.add("a/names", {**files_of(single), **dict.fromkeys(hostile, b"x")})
    names = ("../../../../x.safetensors", "/x.safetensors", "sub/x.safetensors", "x*.safetensors")
    for number, name in enumerate(names):
        index = json.dumps({"weight_map": {"w": name}}).encode()
        without = [path.name for path in weight_files(sharded, "m")]
        hub.add(
            f"a/index{number}",
            {**files_of(sharded, without), "model.safetensors.index.json": index, name: b"x"},
        )
    calls = [{"repo": "a/names"}, *({"repo": f"a/index{number}"} for number in range(len(names)))]
    found, *refused = fetch_all(hub.environment(tmp_path / "in" / "home"), *calls)
    assert set(kept(found["folder"])) == LOADED | {"model.safetensors"}
    for outcome, name in zip(refused, names, strict=True):
        line(outcome, name)
    plain = (*LOADED, "model.safetensors", "model.safetensors.index.json")
    files = [r.path for r in hub.requests if "/resolve/" in r.path or "/content/" in r.path]
    assert all(path.rsplit("/", 1)[-1] in plain and ".." not in path for path in files)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not [path for path in tmp_path.rglob("x*") if path.name.startswith("x")]


def test_offline_without_the_model(hub: LoopbackHub, single: Path, tmp_path: Path) -> None:
    hub.add("a/one", single)
    environment = hub.environment(tmp_path, offline=True)
    (outcome,) = fetch_all(environment, {"repo": "a/one", "revision": "step1"})
    line(outcome, "a/one at 'step1'", str(tmp_path), "HF_HUB_OFFLINE is set", "unset it")
    line(outcome, "HF_HOME", "--model")
    del environment["HF_HUB_OFFLINE"]
    # The client reads this one, too.
    (outcome,) = fetch_all({**environment, "TRANSFORMERS_OFFLINE": "1"}, {"repo": "a/one"})
    line(outcome, "HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_a_snapshot_in_part_does_not_count(hub: LoopbackHub, single: Path, tmp_path: Path) -> None:
    hub.add("a/one", single)
    environment = hub.environment(tmp_path)
    partly = "from huggingface_hub import hf_hub_download as get;"
    for some in (["config.json", "model.safetensors"], ["config.json", "tokenizer.json"]):
        before = partly + "".join(f"get('a/one', {file!r});" for file in some)
        fetch_all(environment, before=before)
        offline = hub.environment(tmp_path, offline=True)
        (outcome,) = fetch_all(offline, {"repo": "a/one"})
        # The second time all that is needed is there: other programs fill the cache, too.
        if "tokenizer.json" in some:
            assert "folder" in outcome
        else:
            line(outcome, "in part only (no tokenizer in ")


def test_damaged_weights_in_the_cache_are_named(
    hub: LoopbackHub, single: Path, tmp_path: Path
) -> None:
    hub.add("a/one", single)
    environment = hub.environment(tmp_path)
    (found,) = fetch_all(environment, {"repo": "a/one"})
    damaged = Path(found["folder"], "model.safetensors").resolve()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (outcome,) = fetch_all(environment, {"repo": "a/one"})
    line(outcome, str(damaged), "delete that file", "run again")
    damaged.unlink()
    assert fetch_all(environment, {"repo": "a/one"}) == [found]
    assert digest(damaged) == digest(single / "model.safetensors")


def test_pickled_weights_are_refused_with_a_command_that_converts_them(
    hub: LoopbackHub, tokenizer: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    pickled = make_checkpoint(tmp_path / "p", "neox", tokenizer, pickled=True, shards=2, seed=3)
    other = {**files_of(pickled, [p.name for p in pickled.glob("pytorch*")]), "flax.msgpack": b"x"}
    hub.add("a/pickled", other, {"step 7": pickled})
    environment = hub.environment(tmp_path / "home")
    calls = ({"repo": "a/pickled", "revision": "step 7"}, {"repo": "a/pickled"})
    outcome, foreign = fetch_all(environment, *calls)
    assert outcome["pickled"] and foreign["pickled"]
    assert not hub.asked("GET", ".bin") and not hub.asked("GET", "flax.msgpack")
    assert "python" not in line(foreign, "flax.msgpack", "--model")
    text = line(outcome, "pickled weights only")
    found = re.search(r"convert once with: (python -c .*) ; then run: (pytest claims .*)", text)
    assert found is not None and found[2] == "pytest claims --model ./pickled-step-7-safetensors"
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = subprocess.run(
        found[1], shell=True, cwd=tmp_path, env=environment | {"PATH": path}, capture_output=True
    )
    assert command.returncode == 0, command.stderr.decode()
    converted = tmp_path / "pickled-step-7-safetensors"
    state: dict[str, Any] = {}
    for file in weight_files(converted, "m"):
        state |= load_file(file)
    shards = [torch.load(p, weights_only=True) for p in sorted(pickled.glob("*.bin"))]
    wanted = {name: tensor for shard in shards for name, tensor in shard.items()}
    assert set(state) == set(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    # The hub's cache has the pickle now; offline, too, it is told for what it is.
    (outcome,) = fetch_all(hub.environment(tmp_path / "home", offline=True), calls[0])
    assert outcome["pickled"] and found[1] in outcome["error"]


@pytest.mark.parametrize("name", ["plain", "two words", "it's", 'a "b" $HOME `c`', "back\\slash"])
def test_the_conversion_command_survives_a_shell(name: str) -> None:
    command = conversion_command(f"/in/{name}", "v'1", Path("/out", name))
    python, option, program = shlex.split(command)
    assert (python, option) == ("python", "-c")
    compile(program, "command", "exec")
    # What the shell passes on, with the two classes replaced by something that only notes.
    noted: list[Any] = []

    class Noting:
        def __getattr__(self, called: str) -> Any:
            return lambda *args, **kwargs: (noted.append((called, args, kwargs)), self)[1]

    exec(program.split("; ", 1)[1], {"M": Noting(), "T": Noting()})
    assert noted[0] == ("from_pretrained", (f"/in/{name}",), {"revision": "v'1", "dtype": "auto"})
    assert [n[1] for n in noted if n[0] == "save_pretrained"] == [(str(Path("/out", name)),)] * 2


def test_trouble_with_the_connection_and_the_disk(
    hub: LoopbackHub, single: Path, tmp_path: Path
) -> None:
    for name in ("one", "busy", "down", "silent", "huge", "html", "xet"):
        hub.add(f"a/{name}", single)
    hub.fail("a/busy", 429)
    hub.fail("a/down", 503)
    hub.stall("a/silent", 3.0)
    hub.pretend_size("a/huge", "model.safetensors", 10**15)
    hub.offer_by_xet("a/xet", "model.safetensors")
    calls = [{"repo": f"a/{name}"} for name in ("busy", "down", "silent", "huge", "xet")]
    environment = hub.environment(
        tmp_path / "home", HF_HUB_ETAG_TIMEOUT="1", HF_HUB_DISABLE_XET="0"
    )
    busy, down, silent, huge, xet = fetch_all(environment, *calls)
    line(busy, "asked too often")
    line(down, f"{hub.url} answered 503", "run again")
    line(silent, f"connection to {hub.url} failed", "no answer in time", "run again")
    line(huge, "1000000.0 GB more in", str(tmp_path), "free", "HF_HOME")
    line(xet, "a/xet", "run again", "HF_HUB_DISABLE_XET=1")
    assert hub.asked("GET", ".safetensors") == []
    one = {"repo": "a/one"}
    full = (
        "import errno, huggingface_hub\n"
        "def full(*_, **__): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "huggingface_hub.snapshot_download = full"
    )
    # Another process fills the disk, all but 1 byte, after the space was reckoned: a warning of the
    # client's, which must not end a download that may fit yet.
    filled = (
        "import shutil, types\n"
        "answers = [10**12]\n"
        "free = lambda _: types.SimpleNamespace(free=answers.pop() if answers else 1)\n"
        "shutil.disk_usage = free"
    )
    a_file = tmp_path / "file"
    a_file.touch()
    running = [
        start({**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}, one),
        start({**environment, "HF_ENDPOINT": hub.url + "/a/one/resolve/main/config.json?"}, one),
        start({**environment, "HF_ENDPOINT": "no-address"}, one),
        start({**environment, "HF_HOME": str(a_file / "home")}, one),
        start(environment, one, before=full),
        start({**environment, "HF_HOME": str(tmp_path / "other")}, one, before=filled),
    ]
    refused, page, address, no_folder, disk, fitted = (result(process)[0] for process in running)
    line(refused, "connection to http://127.0.0.1:9 failed", "run again")
    line(page, "does not answer as a hub does", "HF_ENDPOINT")
    line(address, "HF_ENDPOINT is no address of a hub: no-address")
    line(no_folder, str(a_file), "HF_HOME")
    line(disk, "no space is left", str(tmp_path), "HF_HOME")
    assert Path(fitted["folder"], "model.safetensors").is_file()


def test_eight_processes_download_once(hub: LoopbackHub, sharded: Path, tmp_path: Path) -> None:
    hub.add("a/one", sharded)
    shards = [path.name for path in weight_files(sharded, "m")]
    # Slow enough (1 s) that all eight have begun before it is there.
    hub.slow("a/one", shards[0], bytes_per_second=(sharded / shards[0]).stat().st_size)
    environment = hub.environment(tmp_path)
    running = [start(environment, {"repo": "a/one"}) for _ in range(8)]
    outcomes = [result(process)[0] for process in running]
    assert len({outcome["folder"] for outcome in outcomes}) == 1
    assert sorted(r.path.rsplit("/")[-1] for r in hub.asked("GET", ".safetensors")) == shards
    assert len(hub.asked("GET", "/api/models/a/one")) == 1


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "mistral", "llama"])
def test_toy_checkpoints_are_of_the_real_architectures(
    architecture: Any, tokenizer: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_checkpoint(tmp_path, architecture, tokenizer, dtype="bfloat16", shards=2)
    assert len(weight_files(folder, "m")) == 2
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
    groups = getattr(model.config, "num_key_value_heads", None)
    assert groups == {"mistral": 2, "llama": 4}.get(architecture)
    assert digest(folder / "tokenizer.json") == digest(tokenizer / "tokenizer.json")
