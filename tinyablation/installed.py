"""Which versions of packages are installed, without importing any of them."""

import importlib.metadata
import platform

ABSENT = "absent"


def versions(*packages: str) -> dict[str, str]:
    """Versions by the names given; "python" is the interpreter's, ABSENT one that is not there."""
    return {name: _version(name) for name in packages}


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT
