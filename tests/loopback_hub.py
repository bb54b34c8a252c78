"""A hub on this machine: an HTTP server that answers the real client as the Hugging Face hub does.

Not a test. `LoopbackHub` serves folders as repositories over real sockets on 127.0.0.1 and speaks
what the client asks: model information, the tree of files, HEAD and GET of files, byte ranges,
redirects of weights to a content host of another name (where tokens must not be sent), error codes,
tokens. It can misbehave on order: connections dropped in mid-file, slow or silent answers, 5xx.

    with LoopbackHub() as hub:
        hub.add("owner/name", folder, revisions={"step1000": other_folder})
        subprocess.run([...], env=hub.environment(home))
        assert hub.asked("GET", "model.safetensors")

`make_checkpoint` writes a model folder of a real architecture at toy size to be served.
"""

import hashlib
import json
import math
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tinyablation.models.checkpoint import TOKENIZER_FILES

Files = Path | Mapping[str, Path | bytes]
FOREVER = math.inf
TOKEN = "hf_loopback"  # a token that this hub knows; it knows no other
# What the hub keeps in large-file storage, whatever its size: it is served by the content host.
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".model", ".onnx")
PIECE = 2**16  # bytes of a file sent at once: what a drop or a slow answer is exact to

_API = re.compile(
    r"/api/models/(?P<repo>[^/]+(?:/[^/]+)??)"
    r"(?:/(?P<what>revision|tree)/(?P<revision>[^/]+)(?P<below>/.*)?)?"
)
_RESOLVE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_CONTENT = re.compile(r"/content/(?P<repo>.+)/(?P<commit>[0-9a-f]{40})/(?P<file>.+)")


class Request(NamedTuple):
    """One request as the server got it: the path without its query, unquoted."""

    method: str
    path: str
    token: str | None
    first_byte: int


@dataclass(frozen=True)
class _File:
    content: Path | bytes
    size: int
    git_hash: str
    sha256: str
    large: bool

    def read(self, start: int, length: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start : start + length]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(length)


@dataclass
class _Repository:
    commits: dict[str, dict[str, _File]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: Literal["login", "denied"] | None = None
    private: bool = False


@dataclass
class _Fault:
    times: float = FOREVER
    after_bytes: int | None = None
    bytes_per_second: float | None = None
    status: int | None = None
    seconds: float = 0.0
    xet: bool = False

    @property
    def in_content(self) -> bool:
        return self.after_bytes is not None or self.bytes_per_second is not None


class LoopbackHub:
    """A hub served by a thread of this process; also a context manager.

    url is its endpoint, token one that it accepts, requests all that it was asked so far.
    """

    token = TOKEN

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.pretended: dict[tuple[str, str], int] = {}
        self._repositories: dict[str, _Repository] = {}
        self._moved: dict[str, str] = {}
        self._faults: dict[tuple[str, str | None], _Fault] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> "LoopbackHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def content_url(self) -> str:
        """The content host: the same server by another name, so that the client sees another."""
        return f"http://localhost:{self._server.server_port}"

    # What it holds.

    def add(
        self,
        repo: str,
        files: Files,
        revisions: Mapping[str, Files] | None = None,
        *,
        gated: Literal["login", "denied"] | None = None,
        private: bool = False,
    ) -> str:
        """Serve files (a folder, or contents by name) as `repo` at main; return main's commit.

        revisions: further branches and what they hold. gated: files need a token ("login"), or are
        refused with one as well ("denied"); information about the repository is public, as it is on
        the hub. private: without a token there is no such repository. A repo that is there already
        is replaced; a commit that it had can still be asked for by its hash.
        """
        known = self._repositories.get(repo, _Repository())
        found = _Repository(dict(known.commits), gated=gated, private=private)
        for revision, content in {"main": files, **(revisions or {})}.items():
            listed = _listing(content)
            text = "".join(f"{name} {file.sha256}\n" for name, file in sorted(listed.items()))
            commit = hashlib.sha1(f"{repo}\n{text}".encode()).hexdigest()
            found.commits[commit] = listed
            found.names[revision] = commit
        self._repositories[repo] = found
        return found.names["main"]

    def move(self, old: str, new: str) -> None:
        """Redirect what is asked of `old` to `new`, as the hub does for a renamed repository."""
        self._moved[old] = new

    def pretend_size(self, repo: str, file: str, size: int) -> None:
        """List `file` as `size` bytes long."""
        self.pretended[repo, file] = size

    # How it misbehaves.

    def drop(self, repo: str, file: str, after_bytes: int, times: float = 1) -> None:
        """Close the connection when `after_bytes` of the file are reached; FOREVER: every time."""
        self._faults[repo, file] = _Fault(times, after_bytes=after_bytes)

    def slow(self, repo: str, file: str, bytes_per_second: float) -> None:
        """Send the file no faster than that."""
        self._faults[repo, file] = _Fault(bytes_per_second=bytes_per_second)

    def fail(self, repo: str, status: int, file: str | None = None, times: float = FOREVER) -> None:
        """Answer with an HTTP status: for the file, or, of None, for the repository's API."""
        self._faults[repo, file] = _Fault(times, status=status)

    def stall(
        self, repo: str, seconds: float, file: str | None = None, times: float = FOREVER
    ) -> None:
        """Say nothing for so long before answering: about the file, or to the repository's API."""
        self._faults[repo, file] = _Fault(times, seconds=seconds)

    def offer_by_xet(self, repo: str, file: str) -> None:
        """Offer the file by the hub's other protocol, from a server that does not have it."""
        self._faults[repo, file] = _Fault(xet=True)

    def mend(self) -> None:
        """Misbehave no longer."""
        self._faults.clear()
        self.pretended.clear()

    # What it was asked, and how to ask it.

    def asked(self, method: str, ending: str = "") -> list[Request]:
        """The requests of a method whose path ends so, in order."""
        return [r for r in list(self.requests) if r.method == method and r.path.endswith(ending)]

    def environment(
        self, home: Path, *, token: str | None = None, offline: bool = False, **more: str
    ) -> dict[str, str]:
        """The environment in which the real client talks to this hub, and to nothing else.

        home: HF_HOME, a folder that need not exist. No setting or token of the caller's is left;
        Xet is off (it is a protocol of its own), timeouts are 5 s. more: further variables.
        """
        dropped = ("HF_", "HUGGING", "TRANSFORMERS_", "HTTP_", "HTTPS_", "ALL_PROXY")
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(dropped)}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            # transformers would ask a service of the hub to convert a pickled checkpoint.
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **({"HF_TOKEN": token} if token else {}),
            **more,
        }

    # For the handler.

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def fault(self, repo: str, file: str | None, *, sends: bool) -> _Fault:
        """What goes wrong now, with one of its times used up; sends: content is on its way."""
        with self._lock:
            fault = self._faults.get((repo, file))
            if fault is None or fault.times < 1 or (fault.in_content and not sends):
                return _Fault()
            fault.times -= 1
            return fault

    def moved(self, repo: str) -> str | None:
        return self._moved.get(repo)

    def repository(self, repo: str) -> _Repository | None:
        return self._repositories.get(repo)


class _Refused(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Nothing: `requests` has it."""

    @property
    def hub(self) -> LoopbackHub:
        found: LoopbackHub = self.server.hub  # type: ignore[attr-defined]
        return found

    def _answer(self) -> None:
        url = urlsplit(self.path)
        authorization = self.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(span[1]) if span else 0
        end = int(span[2]) + 1 if span and span[2] else None
        self.hub.note(Request(self.command, unquote(url.path), token, start))
        try:
            if found := _CONTENT.fullmatch(url.path):
                self._content(found, start, end, partial=span is not None)
            elif found := _RESOLVE.fullmatch(url.path):
                self._resolve(found, token, start, end, partial=span is not None)
            elif found := _API.fullmatch(url.path):
                self._api(found, token, parse_qs(url.query))
            elif url.path == "/xet-token":
                expiry = str(int(time.time()) + 3600)
                xet = {"X-Xet-Cas-Url": f"{self.hub.url}/xet", "X-Xet-Token-Expiration": expiry}
                self._send(200, {**xet, "X-Xet-Access-Token": "t"}, b"")
            else:
                raise _Refused(404, None, "Not found")
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self._send(refused.status, headers, json.dumps({"error": refused.message}).encode())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client was interrupted

    def _repository(self, repo: str, token: str | None) -> _Repository:
        if token is not None and token != TOKEN:
            raise _Refused(401, None, "Invalid credentials in Authorization header")
        found = self.hub.repository(repo)
        if found is None or (found.private and token is None):
            if token is None:  # the hub does not tell a stranger what there is
                raise _Refused(401, None, "Invalid username or password.")
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return found

    def _commit(self, repository: _Repository, revision: str) -> str:
        revision = unquote(revision)
        commit = repository.names.get(revision, revision)
        if commit not in repository.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _api(self, found: re.Match[str], token: str | None, query: dict[str, list[str]]) -> None:
        repo = found["repo"]
        if self._elsewhere(repo, "/api/models/"):
            return
        self._misbehave(self.hub.fault(repo, None, sends=True))
        repository = self._repository(repo, token)
        commit = self._commit(repository, found["revision"] or "main")
        files = {
            name: (file, self.hub.pretended.get((repo, name), file.size))
            for name, file in repository.commits[commit].items()
        }
        answer: Any
        if found["what"] == "tree":
            if found["below"]:
                raise _Refused(404, "EntryNotFound", "Entry not found")
            recursive = query.get("recursive", [""])[0].lower() == "true"
            answer = [
                _tree_row(name, file, size)
                for name, (file, size) in files.items()
                if recursive or "/" not in name
            ]
        else:
            sized = "blobs" in query
            answer = {
                "id": repo,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "siblings": [_sibling(n, file, size, sized) for n, (file, size) in files.items()],
            }
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _resolve(
        self, found: re.Match[str], token: str | None, start: int, end: int | None, *, partial: bool
    ) -> None:
        repo, name = found["repo"], unquote(found["file"])
        if self._elsewhere(repo, "/"):
            return
        repository = self._repository(repo, token)
        if repository.gated and token is None:
            raise _Refused(401, "GatedRepo", f"Access to model {repo} is restricted. Log in.")
        if repository.gated == "denied":
            raise _Refused(
                403, "GatedRepo", f"Access to model {repo} is restricted, you are not authorized."
            )
        commit = self._commit(repository, found["revision"])
        file = repository.commits[commit].get(name)
        headers = {"X-Repo-Commit": commit}
        if file is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        if not file.large:
            self._file(repo, name, file, headers, start, end, partial=partial)
            return
        fault = self.hub.fault(repo, name, sends=False)
        self._misbehave(fault)
        if fault.xet:
            link = f'<{self.hub.url}/xet-token>; rel="xet-auth"'
            size = str(file.size)
            xet = {"X-Xet-Hash": file.sha256, "Link": link, "X-Linked-Size": size}
            self._send(200, {**headers, **xet, "X-Linked-ETag": f'"{file.sha256}"'}, b"")
            return
        headers |= {
            "Location": f"{self.hub.content_url}/content/{quote(repo)}/{commit}/{quote(name)}?s=1",
            "X-Linked-ETag": f'"{file.sha256}"',
            "X-Linked-Size": str(file.size),
            "ETag": f'"{file.git_hash}"',
        }
        self._send(302, headers, b"Found. Redirecting.")

    def _content(self, found: re.Match[str], start: int, end: int | None, *, partial: bool) -> None:
        repo, name = unquote(found["repo"]), unquote(found["file"])
        repository = self.hub.repository(repo)
        file = repository.commits.get(found["commit"], {}).get(name) if repository else None
        if file is None:
            raise _Refused(404, None, "NoSuchKey")
        self._file(repo, name, file, {}, start, end, partial=partial)

    def _file(
        self,
        repo: str,
        name: str,
        file: _File,
        headers: dict[str, str],
        start: int,
        end: int | None,
        *,
        partial: bool,
    ) -> None:
        stop = file.size if end is None else min(end, file.size)
        headers |= {"ETag": f'"{file.sha256 if file.large else file.git_hash}"'}
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if partial and start >= file.size:
            self._send(416, {**headers, "Content-Range": f"bytes */{file.size}"}, b"")
            return
        if partial:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        fault = self.hub.fault(repo, name, sends=self.command == "GET")
        self._misbehave(fault)
        self.send_response(206 if partial else 200)
        for key, value in {**headers, "Content-Length": str(stop - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = stop if fault.after_bytes is None else max(start, min(stop, fault.after_bytes))
        for position in range(start, limit, PIECE):
            piece = file.read(position, min(PIECE, limit - position))
            self.wfile.write(piece)
            if fault.bytes_per_second:
                time.sleep(len(piece) / fault.bytes_per_second)
        if limit < stop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _misbehave(self, fault: _Fault) -> None:
        time.sleep(fault.seconds)
        if fault.status is not None:
            raise _Refused(fault.status, None, "Internal trouble")

    def _elsewhere(self, repo: str, before: str) -> bool:
        new = self.hub.moved(repo)
        if new is not None:
            target = self.path.replace(f"{before}{repo}", f"{before}{new}", 1)
            self._send(307, {"Location": target}, b"Temporary Redirect")
        return new is not None

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _listing(files: Files) -> dict[str, _File]:
    if isinstance(files, Path):
        paths = sorted(path for path in files.rglob("*") if path.is_file())
        files = {path.relative_to(files).as_posix(): path for path in paths}
    return {name: _file(name, content) for name, content in files.items()}


def _file(name: str, content: Path | bytes) -> _File:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    git, sha = hashlib.sha1(f"blob {size}\0".encode()), hashlib.sha256()
    whole = _File(content, size, "", "", False)
    for position in range(0, size, 2**20):
        piece = whole.read(position, 2**20)
        git.update(piece)
        sha.update(piece)
    large = name.endswith(LARGE_SUFFIXES)
    return _File(content, size, git.hexdigest(), sha.hexdigest(), large)


def _tree_row(name: str, file: _File, size: int) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": file.git_hash, "size": size, "path": name}
    if file.large:
        row["lfs"] = {"oid": file.sha256, "size": size, "pointerSize": 134}
    return row


def _sibling(name: str, file: _File, size: int, sized: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": name}
    if sized:
        row |= {"size": size, "blobId": file.git_hash}
        if file.large:
            row["lfs"] = {"sha256": file.sha256, "size": size, "pointerSize": 134}
    return row


def files_of(folder: Path, without: Iterable[str] = (), **more: bytes) -> dict[str, Path | bytes]:
    """What `add` takes, of a folder's own files: less some, and more (dots as __ in a keyword)."""
    left_out = set(without)
    found: dict[str, Path | bytes] = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in left_out
    }
    return found | {name.replace("__", "."): content for name, content in more.items()}


def make_checkpoint(
    folder: Path,
    architecture: Literal["gpt2", "neox", "mistral", "llama"],
    tokenizer_folder: Path,
    *,
    dtype: str = "float32",
    shards: int = 1,
    pickled: bool = False,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a random model of an architecture, with the tokenizer of a folder; return the folder.

    2 layers x 4 heads, d_model 32, context 128, as many tokens as the tokenizer has; Mistral has 2
    key-value heads and a window of 64 tokens. Biases and norms are random too, at sizes at which an
    ablation moves logits by tenths. shards: the weights in so many files, with an index. pickled:
    pytorch_model.bin in place of safetensors. config: further or other fields of the config.
    """
    import torch
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    end = tokenizer.eos_token_id
    begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = {"vocab_size": len(tokenizer), "bos_token_id": begin, "eos_token_id": end}
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "max_position_embeddings": 128}
    if architecture == "mistral":
        sizes |= {"num_key_value_heads": 2, "sliding_window": 64}
    classes: dict[str, Any] = {
        "gpt2": hf.GPT2Config,
        "neox": hf.GPTNeoXConfig,
        "mistral": hf.MistralConfig,
        "llama": hf.LlamaConfig,
    }
    # A generator of its own, so that the caller's draws stay where they were.
    generator = torch.Generator().manual_seed(seed)
    settings = classes[architecture](**{**ids, **sizes, **config})
    with torch.random.fork_rng():
        model = hf.AutoModelForCausalLM.from_config(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = "norm" in name or "ln_" in name
            parameter.copy_(0.25 * noise + (1.0 if norm and name.endswith("weight") else 0.0))
    model = model.to(getattr(torch, dtype))
    limit = _save(model, folder, shards)
    for file in TOKENIZER_FILES:
        if (tokenizer_folder / file).is_file():
            shutil.copyfile(tokenizer_folder / file, folder / file)
    if pickled:
        _pickle(folder, model.state_dict(), limit)
    return folder


def _save(model: Any, folder: Path, shards: int) -> int:
    """Save a model in so many files; return the size limit of a file, in bytes, that did it.

    Files are filled in order, so their number does not simply fall as the limit grows: tried are
    limits from the whole model down, each 7 % below the last.
    """
    limit = model.get_memory_footprint() + 1
    while limit > 1000:
        model.save_pretrained(folder, max_shard_size=limit)
        written = sorted(folder.glob("*.safetensors"))
        if len(written) == shards:
            return limit
        for path in (*written, *folder.glob("*.index.json")):
            path.unlink()
        limit = int(limit * 0.93)
    raise ValueError(f"{folder}: the model cannot be split into {shards} files")


def _pickle(folder: Path, state: dict[str, Any], limit: int) -> None:
    """Put pytorch_model*.bin, and their index if there are several, in place of safetensors."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards

    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern="pytorch_model{suffix}.bin", max_shard_size=limit
    )
    for name, tensors in plan.filename_to_tensors.items():
        torch.save({tensor: state[tensor].clone() for tensor in tensors}, folder / name)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
