"""Corpora by tokenizer: found by the tokenizer's fingerprint, built once if there are none.

A project's corpora are in its corpora folder; one that differs from its manifest is an error. For
any other tokenizer they are built from the knowledge tables into a cache beside the hub's, at an
address made from tokenizer and knowledge; incomplete ones there are rebuilt.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tinyablation.corpora.corpus_folder import BUILDER, Shelf, natural_hash, put_on_shelf
from tinyablation.corpora.defects import Defect
from tinyablation.corpora.examples import Corpus, CorpusError, Split
from tinyablation.corpora.filtering import TooFewPrompts
from tinyablation.corpora.own_conditions import OwnCondition
from tinyablation.corpora.tokenizer_fingerprint import fingerprint, load_as_measured
from tinyablation.files.manifests import MANIFEST
from tinyablation.memo import Memo
from tinyablation.records.conditions import NAMES

__all__ = ["Library", "fingerprint"]

SEED = 0  # seed of pairs and splits that are built into the cache
_UNFINISHED = ".unfinished"


class Library:
    """The corpora of any tokenizer.

    root: the folder with a folder of corpora per tokenizer; knowledge: the tables to build others
    from (default: root/knowledge); cache: where those are kept (default: beside the hub's cache, so
    that HF_HOME moves it); say: called with a line when something is built, which takes some five
    seconds, three of them imports; own: the user's conditions from files, by name, for any
    tokenizer; seed: for splits that the files do not give.
    """

    def __init__(
        self,
        root: Path,
        knowledge: Path | None = None,
        cache: Path | None = None,
        *,
        say: Callable[[str], object] | None = None,
        own: Mapping[str, OwnCondition] | None = None,
        seed: int = SEED,
    ) -> None:
        self.root = Path(root)
        self.knowledge = self.root / "knowledge" if knowledge is None else Path(knowledge)
        self.cache = cache
        self.say = say
        self.own = dict(own or {})
        self.seed = seed
        self._shelves: dict[Path, tuple[Shelf, ...]] = {}
        self._tokenizers = Memo()  # by folder
        self._tokenised = Memo()  # a corpus with its split and defects, or why there is none

    def corpus(self, tokenizer_folder: Path, condition: str, name: str) -> tuple[Corpus, Split]:
        """The examples of a condition and their split, for the tokenizer of a model's folder.

        name: the model's id, for messages and for what is built. Raises TooFewPrompts, in one line
        with the counts, if too few examples can be made for this tokenizer; CorpusError if a corpus
        folder is damaged or ambiguous, has no such condition, or the cache cannot be written;
        TokenisationError if there is no tokenizer.
        """
        if condition in self.own:
            return self._own(tokenizer_folder, condition, name)[:2]
        shelf = self.shelf(tokenizer_folder, name, condition)
        lacking = _lacking(shelf, condition, name)
        if lacking is not None:
            raise lacking
        return shelf.load(condition, self._called(shelf))

    def lacks(self, tokenizer_folder: Path, condition: str, name: str) -> str | None:
        """Why `corpus` has no examples of the condition for this tokenizer; None if it has some."""
        if condition in self.own:
            return None
        lacking = _lacking(self.shelf(tokenizer_folder, name, condition), condition, name)
        return None if lacking is None else str(lacking)

    def conditions(self, tokenizer_folder: Path, name: str) -> tuple[str, ...]:
        """The named conditions that `corpus` has examples of for this tokenizer."""
        return tuple(
            condition
            for condition in NAMES
            if condition in self.shelf(tokenizer_folder, name, condition).manifest.built
        )

    def defects(self, tokenizer_folder: Path, condition: str, name: str) -> tuple[Defect, ...]:
        """The defects of a user's condition for this tokenizer; () for a named condition."""
        return self._own(tokenizer_folder, condition, name)[2]

    def shelf(self, tokenizer_folder: Path, name: str, condition: str = "") -> Shelf:
        """The folder of corpora for a tokenizer: under the root, else in the cache, else built.

        If several under the root match: the first that has the condition, in the order of
        `standing`.
        """
        place = Path(tokenizer_folder).resolve()
        if place not in self._shelves:
            found = fingerprint(place)
            standing = tuple(one for one in self.standing() if one.manifest.fingerprint == found)
            self._shelves[place] = standing or (self._cached(found, place, name),)
        shelves = self._shelves[place]
        return next((one for one in shelves if condition in one.manifest.built), shelves[0])

    def _own(
        self, tokenizer_folder: Path, condition: str, name: str
    ) -> tuple[Corpus, Split, tuple[Defect, ...]]:
        folder = Path(tokenizer_folder).resolve()

        def tokenised() -> tuple[Corpus, Split, tuple[Defect, ...]] | TooFewPrompts:
            tokenizer = self._tokenizers(folder, lambda: load_as_measured(folder))
            try:
                return self.own[condition].for_tokenizer(tokenizer, name, self.seed)
            except TooFewPrompts as lacking:  # every claim about the condition asks again
                return lacking

        found = self._tokenised((folder, condition), tokenised)
        if isinstance(found, TooFewPrompts):
            raise TooFewPrompts(str(found), reason=found.reason)
        return found

    def _called(self, shelf: Shelf) -> str:
        own = shelf.folder.parent == self.root
        return shelf.folder.name if own else shelf.manifest.tokenizer

    # Those of the project ------------------------------------------------------------------------

    def standing(self) -> tuple[Shelf, ...]:
        """The shelves under the root.

        Among those for the same tokenizer the one built here comes first, then the one named like
        the tokenizer, then by name. CorpusError names a folder that has corpora but no readable
        manifest.
        """
        if not self.root.is_dir():
            raise CorpusError(f"{self.root}: no such folder of corpora")
        shelves: list[Shelf] = []
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            if not (folder / MANIFEST).exists():
                if any((folder / f"{condition}.jsonl").exists() for condition in NAMES):
                    raise CorpusError(
                        f"{folder}: has corpora but no {MANIFEST}, so nothing says which tokenizer "
                        f"they are for; `python -m tinyablation corpora adopt {folder} --tokenizer "
                        "PATH_OR_ID` writes one"
                    )
                continue
            shelves.append(Shelf.at(folder))
        return tuple(sorted(shelves, key=_rank))

    def doubled(self) -> tuple[str, ...]:
        """A line for each folder under the root whose corpora are shadowed by another folder's.

        Raises CorpusError as `standing` does.
        """
        lines = []
        giving: dict[tuple[str, str], Shelf] = {}
        for shelf in self.standing():
            given: dict[str, list[str]] = {}
            for condition in shelf.manifest.built:
                key = (shelf.manifest.fingerprint, condition)
                first = giving.setdefault(key, shelf)
                if first is not shelf:
                    given.setdefault(first.folder.name, []).append(condition)
            lines += [
                f"{self.root.name}/{first} and {self.root.name}/{shelf.folder.name} are for the "
                f"same tokenizer: {', '.join(conditions)} of {first} is used"
                for first, conditions in given.items()
            ]
        return tuple(lines)

    # Those that are built ------------------------------------------------------------------------

    def _cached(self, wanted: str, tokenizer_folder: Path, name: str) -> Shelf:
        known = natural_hash(self.knowledge)
        key = f"{wanted[:16]}-{known[:8]}"
        try:
            folder = self._place(key)
            shelf = _whole(folder, wanted, known)
            return shelf or self._build(folder, wanted, known, tokenizer_folder, name)
        except OSError as error:
            raise CorpusError(
                f"{name}: no corpora under {self.root} are for its tokenizer, and none can be kept "
                f"in the cache ({error}); set HF_HOME to a folder that can be written, or run "
                f"`python -m tinyablation corpora build --tokenizer {tokenizer_folder} --name "
                f"{name} --output {self.root}`"
            ) from error

    def _place(self, key: str) -> Path:
        if self.cache is not None:
            return self.cache / key
        from huggingface_hub import cached_assets_path

        try:
            return cached_assets_path("tinyablation", namespace="corpora", subfolder=key)
        except ValueError as error:  # a file exists in place of a folder
            raise NotADirectoryError(str(error)) from error

    def _build(
        self, folder: Path, wanted: str, known: str, tokenizer_folder: Path, name: str
    ) -> Shelf:
        """Build into the cache: one process builds while the others wait."""
        from filelock import FileLock

        folder.parent.mkdir(parents=True, exist_ok=True)
        # The system frees the lock when its holder dies.
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            shelf = _whole(folder, wanted, known)
            if shelf is not None:
                return shelf
            for left in folder.parent.glob(f".{folder.name}.*{_UNFINISHED}"):
                shutil.rmtree(left, ignore_errors=True)
            if self.say is not None:
                self.say(
                    f"{name}: no corpora under {self.root} are for its tokenizer; building them "
                    f"once, into {folder}"
                )
            unfinished = folder.with_name(
                f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}{_UNFINISHED}"
            )
            from tinyablation.corpora.natural import build_natural

            unfinished.mkdir()
            try:
                tokenizer = load_as_measured(tokenizer_folder)
                built = build_natural(self.knowledge, tokenizer, name, seed=SEED)
                put_on_shelf(unfinished, built, tokenizer, name, knowledge=known, seed=SEED)
                if folder.exists():  # it was found to be incomplete
                    shutil.rmtree(folder)
                unfinished.rename(folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return Shelf.at(folder)


def _rank(shelf: Shelf) -> tuple[bool, bool, str]:
    """Sort key of the shelves for one tokenizer: see Library.standing."""
    made = shelf.manifest
    return made.builder is None, shelf.folder.name != made.tokenizer, shelf.folder.name


def _lacking(shelf: Shelf, condition: str, name: str) -> CorpusError | None:
    made = {str(key): made for key, made in shelf.manifest.conditions.items()}.get(condition)
    if made is None:
        has = ", ".join(shelf.manifest.built) or "none"
        return CorpusError(f"{shelf.folder}: has no corpus {condition!r}; there are: {has}")
    if made.refused is not None:
        return TooFewPrompts(f"{name}, {condition}: {made.refused}", reason=made.refused)
    return None


def _whole(folder: Path, wanted: str, known: str) -> Shelf | None:
    """The shelf of a cached folder if it is for this tokenizer and knowledge, and undamaged."""
    with suppress(CorpusError):
        shelf = Shelf.at(folder)
        manifest = shelf.manifest
        made_of = (manifest.fingerprint, manifest.knowledge, manifest.builder, manifest.seed)
        complete = set(manifest.conditions) == {*NAMES}
        if made_of == (wanted, known, BUILDER, SEED) and complete:
            for condition in manifest.built:
                shelf.load(condition, manifest.tokenizer)
            return shelf
    return None
