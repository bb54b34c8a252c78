"""Models of the Hugging Face hub: found in its cache on this machine, or downloaded into it.

Only the files a loader reads are fetched, and never a pickle. Every failure becomes one line that
says what to do. huggingface_hub reads HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE at import, so it is
imported inside functions only.
"""

import errno
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.errors import LoadingError, PickledWeights, WeightsMissing
from tinyablation.models.checkpoint import (
    CONFIG,
    PICKLED,
    TOKENIZER_FILES,
    WEIGHTS,
    WEIGHTS_INDEX,
    conversion_command,
    shard_names,
    weight_files,
)
from tinyablation.models.devices import gigabytes

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

GENERATION_CONFIG = "generation_config.json"
# Pickles that transformers reads if there are no safetensors; it ignores other names.
CONVERTIBLE = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Other weight files that are not read here: TensorFlow's and Flax's.
FOREIGN = (".h5", ".msgpack")
# A tokenizer is complete with any one of these sets.
TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AGAIN = "run again: files that came whole are kept, only the rest is downloaded"


class Fetched(NamedTuple):
    """The folder of a model's files, and the commit of the repository they come from."""

    folder: Path
    commit: str


def fetch(
    name: str,
    repo: str,
    revision: str | None = None,
    *,
    gated: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Fetched:
    """A repository's model as a folder on this machine, at a branch, tag or commit (None: main).

    A complete snapshot in the hub's cache is used without any network access. Otherwise the missing
    files are downloaded, with the hub's progress bars; processes that want the same repository wait
    for one another. name: the model's name in messages. gated: whether its licence is known to
    require acceptance. check: called with the folder after config.json is fetched and before the
    weights are, so that it can reject a model by raising.

    Raises WeightsMissing, in one line that says what to do, if the model cannot be obtained
    (offline, no access, no such repository or revision, connection, disk), and PickledWeights, with
    the command that converts them, if there are only pickled weights.
    """
    request = _Request(name, repo, revision, gated)
    with _explained(request):
        from filelock import FileLock
        from huggingface_hub import cached_assets_path, constants

        found = _cached(request)
        if found is not None:
            return found
        if constants.is_offline_mode():
            raise _offline(request)
        locks = cached_assets_path("tinyablation", namespace="downloads")
        # One process downloads and the others find its files, so that even with eight workers the
        # hub is asked once and the disk space is checked once.
        with FileLock(locks / f"{repo.replace('/', '--')}.lock"):
            return _cached(request) or _download(request, check)


class _Request(NamedTuple):
    name: str
    repo: str
    revision: str | None
    gated: bool

    @property
    def what(self) -> str:
        return self.repo if self.revision is None else f"{self.repo} at {self.revision!r}"

    def missing(self, text: str) -> WeightsMissing:
        return WeightsMissing(f"model {self.name!r}: {text}")

    def pickled(self, files: list[str]) -> PickledWeights:
        refused = f"model {self.name!r}: {self.what} has pickled weights only, which are never read"
        target = Path(f"{self.repo.rsplit('/', 1)[-1]}-{self.revision or 'main'}-safetensors")
        target = Path(re.sub(r"[^\w.-]", "-", target.name))
        if not set(files) & set(CONVERTIBLE):
            return PickledWeights(
                f"{refused} ({', '.join(files)}), and not as transformers names them; convert them "
                "to safetensors with what wrote them, and name the folder with --model"
            )
        command = conversion_command(self.repo, self.revision, target)
        return PickledWeights(
            f"{refused} (loading a pickle can run code); convert once with: {command} ; then run: "
            f"pytest claims --model ./{target}"
        )


# The cache.


def _cached(request: _Request) -> Fetched | None:
    """The snapshot in the cache if it is complete, else None; no network access."""
    folder = _snapshot(request)
    if folder is None or _lacking(request, folder) is not None:
        return None
    return Fetched(folder, folder.name)


def _snapshot(request: _Request) -> Path | None:
    """The cache's folder of a revision, complete or not; None without a config.json."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(request.repo, CONFIG, revision=request.revision)
    return Path(found).parent if isinstance(found, str) else None


def _lacking(request: _Request, folder: Path) -> str | None:
    """What a snapshot lacks to be loadable, as text; None if it is complete.

    If the cache lists the repository's files, each must exist and weights must have the right
    size. Otherwise (other programs fill the cache too) at least one tokenizer must exist.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        weights = weight_files(folder, request.name)
    except PickledWeights:
        return f"no {WEIGHTS} in {folder}"
    except LoadingError as error:
        return str(error).removeprefix(f"model {request.name!r}: ").split("; ")[0]
    try:
        tree = get_cached_repo_tree(request.repo, revision=folder.name)
        sizes = {file.path: file.size for file in tree}
    except CachedRepoTreeNotFoundError:
        sizes = {}
    for path in weights:
        size = path.stat().st_size
        if size != sizes.get(path.name, size):
            full = sizes[path.name]
            return f"{path.resolve()} has {size} bytes in place of {full}; delete that file"
    have = [path.name for path in folder.iterdir() if path.is_file()]
    absent = [file for file in TOKENIZER_FILES if file in sizes and file not in have]
    if absent:
        return f"no {', '.join(absent)} in {folder}"
    return None if _has_tokenizer(have) else f"no tokenizer in {folder}"


def _has_tokenizer(names: Iterable[str]) -> bool:
    have = set(names)
    return any(have.issuperset(files) for files in TOKENIZERS)


def _pickled(names: Iterable[str]) -> list[str]:
    return sorted(n for n in names if n in CONVERTIBLE or n.endswith((*PICKLED, *FOREIGN)))


def _offline(request: _Request) -> WeightsMissing:
    from huggingface_hub import constants

    folder = _snapshot(request)
    if folder is not None:
        names = [path.name for path in folder.iterdir()]
        if not {WEIGHTS, WEIGHTS_INDEX} & set(names) and (pickled := _pickled(names)):
            return request.pickled(pickled)
        found = f"the hub's cache has {request.what} in part only ({_lacking(request, folder)})"
    else:
        found = f"the hub's cache in {constants.HF_HUB_CACHE} does not have {request.what}"
    return request.missing(
        f"{found}, and HF_HUB_OFFLINE is set; unset it to download the model, set HF_HOME to a "
        "folder whose cache has it, or name a path with --model"
    )


# The download.


def _download(request: _Request, check: Callable[[Path], object] | None) -> Fetched:
    from huggingface_hub import constants, hf_hub_download, snapshot_download

    commit, sizes = _listed(request)
    small = [file for file in (CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES) if file in sizes]
    wanted = _wanted(request, sizes)
    _check_space(request, {file: sizes[file] for file in (*small, *wanted)}, commit)
    with warnings.catch_warnings():
        # The client warns of tolerable problems (no symbolic links, a disk nearly full), which
        # would abort the download where warnings are errors, as in a test session.
        warnings.simplefilter("default")
        # By name, so that the cache records which commit the name refers to and finds it offline.
        # If access is denied, it fails here, at the smallest file.
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        first = hf_hub_download(
            request.repo, CONFIG, revision=request.revision, etag_timeout=timeout
        )
        folder = Path(first).parent
        if folder.name != commit:
            raise request.missing(f"{request.what} was changed while it was asked for; run again")
        if check is not None:
            check(folder)
        if WEIGHTS_INDEX in wanted:
            index = hf_hub_download(
                request.repo, WEIGHTS_INDEX, revision=commit, etag_timeout=timeout
            )
            shards = _shards(request, Path(index), sizes)
            wanted += shards
            _check_space(request, {file: sizes[file] for file in (*small, *wanted)}, commit)
        # The names contain no wildcards: shard names are checked, the others are literals above.
        snapshot_download(
            request.repo, revision=commit, allow_patterns=[*small, *wanted], etag_timeout=timeout
        )
    lacking = _lacking(request, folder)
    if lacking is not None:
        raise request.missing(f"{request.what} did not come whole ({lacking}); {_AGAIN}")
    return Fetched(folder, commit)


def _listed(request: _Request) -> tuple[str, dict[str, int]]:
    """The commit that a revision refers to, and the sizes of its files in bytes, by name.

    Names are untrusted input: files in folders and anything else but a plain name are left out.
    """
    from huggingface_hub import HfApi, constants

    try:
        info = HfApi().model_info(
            request.repo,
            revision=request.revision,
            files_metadata=True,
            # Without a timeout the client would wait forever for a silent server.
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        commit = str(info.sha)
        named = [(str(file.rfilename), file.size) for file in info.siblings or ()]
        sizes = {n: int(size or 0) for n, size in named if re.fullmatch(r"\w[\w.-]*", n)}
    except (AttributeError, KeyError, TypeError) as error:  # JSON of another structure
        raise _no_hub(request) from error
    if not _COMMIT.fullmatch(commit):
        raise _no_hub(request)
    return commit, sizes


def _wanted(request: _Request, sizes: Mapping[str, int]) -> list[str]:
    """The weight files to download, or their index; raises if nothing can be loaded."""
    if CONFIG not in sizes:
        raise request.missing(f"{request.what} has no {CONFIG}, so no model for transformers")
    if not _has_tokenizer(sizes):
        raise request.missing(f"{request.what} has no tokenizer; a folder with one can be named")
    # If both exist, a loader uses the single file.
    for file in (WEIGHTS, WEIGHTS_INDEX):
        if file in sizes:
            return [file]
    if pickled := _pickled(sizes):
        raise request.pickled(pickled)
    raise request.missing(
        f"{request.what} has no {WEIGHTS}, the only weights that are read; name another "
        "repository or a folder with --model"
    )


def _shards(request: _Request, index: Path, sizes: Mapping[str, int]) -> list[str]:
    try:
        shards = shard_names(index, request.name)
    except LoadingError as error:
        text = str(error).removeprefix(f"model {request.name!r}: ")
        raise request.missing(f"{request.what} cannot be loaded: {text}") from error
    absent = [shard for shard in shards if shard not in sizes]
    if absent:
        raise request.missing(
            f"{request.what} lacks {', '.join(absent)}, which its {WEIGHTS_INDEX} lists; try "
            "another --revision"
        )
    return shards


def _check_space(request: _Request, sizes: Mapping[str, int], commit: str) -> None:
    """Raise WeightsMissing if the cache's disk has no room for the files still to download."""
    from huggingface_hub import constants, try_to_load_from_cache

    needed = sum(
        size
        for file, size in sizes.items()
        if not isinstance(try_to_load_from_cache(request.repo, file, revision=commit), str)
    )
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    disk = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise request.missing(
            f"{request.what} takes {gigabytes(needed)} more in {cache}, whose disk has "
            f"{gigabytes(free)} free; make room, or set HF_HOME to a folder on a larger disk"
        )


# What went wrong.


@contextmanager
def _explained(request: _Request) -> Iterator[None]:
    """Turn the errors of the hub's client into WeightsMissing with one line."""
    import httpx2

    try:
        yield
    # OSError: most of the client's errors, and those of the disk; ValueError: invalid JSON or an
    # invalid id; RuntimeError: failed Xet transfers.
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, RuntimeError) as error:
        raise _explanation(request, error) from error


def _explanation(request: _Request, error: Exception) -> WeightsMissing:
    import httpx2
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _explanation(request, error.__cause__)  # the error itself only guesses at the cause
    if isinstance(error, errors.OfflineModeIsEnabled):
        return _offline(request)
    if isinstance(error, errors.HfHubHTTPError):
        return request.missing(_refusal(request, error))
    where = constants.ENDPOINT
    if isinstance(error, errors.HFValidationError):
        return request.missing(f"{request.repo!r} is no name of a repository ({_line(error)})")
    if isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
        return request.missing(f"HF_ENDPOINT is no address of a hub: {where}")
    if isinstance(error, RuntimeError):  # from Xet, the hub's own protocol for large files
        said = _line(error).split(": ")[-1]
        return request.missing(
            f"the transfer of {request.what} failed ({said}); {_AGAIN}; if it fails again, set "
            "HF_HUB_DISABLE_XET=1"
        )
    if isinstance(error, (httpx2.HTTPError, ConnectionError, TimeoutError)):
        silent = isinstance(error, (httpx2.TimeoutException, TimeoutError))
        said = "no answer in time" if silent else _line(error)
        return request.missing(
            f"the connection to {where} failed while {request.what} was fetched ({said}); {_AGAIN}"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return request.missing(
            f"no space is left in {constants.HF_HUB_CACHE} for {request.what}; make room, or set "
            "HF_HOME to a folder on a larger disk"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return request.missing(
            f"{request.what} cannot be kept in {constants.HF_HUB_CACHE} ({error.strerror}); set "
            "HF_HOME to a folder where you may write"
        )
    if isinstance(error, OSError):  # the client's own, such as for a truncated file
        return request.missing(f"{request.what} did not come whole ({_line(error)}); {_AGAIN}")
    if isinstance(error, json.JSONDecodeError):
        return _no_hub(request)
    return request.missing(
        f"{request.what} cannot be fetched ({_line(error)}); check HF_HOME and HF_ENDPOINT"
    )


def _refusal(request: _Request, error: "HfHubHTTPError") -> str:
    """The message for an HTTP error status of the hub, with what to do."""
    from huggingface_hub import constants, errors, get_token

    what, status = request.what, error.response.status_code
    page = f"{constants.ENDPOINT}/{request.repo}"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    said = _line(error.server_message or "")
    known = get_token() is not None
    no_such = isinstance(error, errors.RepositoryNotFoundError) or status == 401
    if status == 401 and known:
        return f"{constants.ENDPOINT} does not accept your token for {what}; {log_in} anew"
    if isinstance(error, errors.GatedRepoError) and known:
        return f"{what} is gated and your token may not read it; ask for access at {page}"
    if isinstance(error, errors.GatedRepoError) or (no_such and request.gated and not known):
        return f"{what} is gated; accept its licence at {page}, then {log_in}"
    if no_such:
        access = "your token may not see it" if known else f"if it is private, {log_in}"
        return f"there is no repository {request.repo} at {constants.ENDPOINT}, or {access}"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{request.repo} has no revision {request.revision or 'main'!r}; its branches and tags "
            f"are at {page}/tree/main"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{what} lists a file that it does not have; try another --revision"
    if isinstance(error, errors.DisabledRepoError):
        return f"{what} was disabled on the hub; name a folder with --model"
    if status == 403:
        return f"access to {what} is forbidden ({said}); check what your token may read"
    if status == 429:
        return f"{constants.ENDPOINT} refuses requests for now: it was asked too often; {log_in}"
    return f"{constants.ENDPOINT} answered {status} for {what} ({said}); {_AGAIN}"


def _no_hub(request: _Request) -> WeightsMissing:
    from huggingface_hub import constants

    return request.missing(
        f"{constants.ENDPOINT} does not answer as a hub does when asked for {request.what}; check "
        "HF_ENDPOINT"
    )


def _line(text: object) -> str:
    """The first line of a foreign error, without URLs and errno, at most 200 characters."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    kept = "".join(sign for sign in (lines[0] if lines else "") if sign.isprintable())
    return re.sub(r"(,? \w+:?)? \(?https?://\S+|\[Errno -?\d+\] ", "", kept)[:200] or "nothing said"
