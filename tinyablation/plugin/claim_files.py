"""Which of the test files that a command names hold claims, found without importing any."""

import ast
import importlib.util
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

_key = pytest.StashKey[tuple[Path, ...]]()


def argument_paths(config: pytest.Config) -> list[Path]:
    """The paths of the command's arguments; with --pyargs also those of modules and packages."""
    return [_path(config, argument.split("::", 1)[0]) for argument in config.args]


def _path(config: pytest.Config, argument: str) -> Path:
    if config.option.pyargs:
        try:
            found = importlib.util.find_spec(argument)
        except (AttributeError, ImportError, ValueError):
            found = None
        if found is not None and found.submodule_search_locations:
            return Path(found.submodule_search_locations[0]).resolve()
        if found is not None and found.origin is not None:
            return Path(found.origin).resolve()
    return (config.invocation_params.dir / argument).resolve()


def claim_files(config: pytest.Config) -> tuple[Path, ...]:
    """The test files among the arguments that mark a claim in their text."""
    if _key not in config.stash:
        paths = dict.fromkeys(
            path for argument in argument_paths(config) for path in _tests(config, argument)
        )
        config.stash[_key] = tuple(path for path in paths if marks_claims(path))
    return config.stash[_key]


def marks_claims(path: Path) -> bool:
    """Whether a Python file has a decorator, or other call, that ends with mark.claim(...)."""
    try:
        source = path.read_bytes()
        if b"mark.claim" not in source:
            return False
        return any(
            isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.claim")
            for node in ast.walk(ast.parse(source))
        )
    except (OSError, ValueError, SyntaxError):
        return False  # pytest reports it


def _tests(config: pytest.Config, path: Path) -> Iterator[Path]:
    """The test files at a path, by pytest's own settings."""
    if path.is_file():
        yield path
        return
    names, skipped = config.getini("python_files"), config.getini("norecursedirs")
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(
            name for name in folders if not any(fnmatch(name, pattern) for pattern in skipped)
        )
        for name in sorted(files):
            if name.endswith(".py") and any(fnmatch(name, pattern) for pattern in names):
                yield Path(folder, name)


class Written(NamedTuple):
    """The content of claims/: text, claim ids (None: not all are literal), tests."""

    text: str
    claims: frozenset[str] | None
    tests: tuple[str, ...]


def written(folder: Path) -> Written:
    """The claims of a folder, without importing any."""
    text, claims, tests, literal = "", set(), [], True
    for path in sorted(folder.rglob("*.py")):
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (OSError, ValueError, SyntaxError):
            literal = False  # reported at collection
            continue
        text += f"{path.name}\n{source}"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                tests.append(node.name)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.claim"):
                found = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                claims |= {str(value) for value in found}
                literal = literal and bool(found)
    return Written(text, frozenset(claims) if literal and claims else None, tuple(tests))
