"""Where the models, corpora and tables lie that come with the library.

In a checkout they are its top-level folders, corpora/ and fixtures/. A wheel has copies of what a
first session needs under tinyablation/shipped/ (setup.py says which). The extra `organisms` brings
another wheel, with all embedded models (fixtures/pyproject.toml), which come first then.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tinyablation import __version__

_IN_WHEEL = Path(__file__).with_name("shipped")
_IN_CHECKOUT = Path(__file__).parents[1]
_EXTRA = "tinyablation-organisms"

CORPORA = "corpora"
MODELS = "fixtures/models.toml"
ERROR_RATES = "fixtures/calibration/error_rates.json"

# The embedded models that the wheel is without, and how they are had.
OF_EXTRA = (
    *("tiny-gpt2-plain", "tiny-mistral", "tiny-mistral-plain"),
    *("tiny-llama-plain", "tiny-neox", "tiny-neox-plain"),
)
INSTALL_EXTRA = "pip install 'tinyablation[organisms]'"


def shipped(what: str) -> Path:
    """A file or folder that came with the library, by its path in a checkout."""
    if not _IN_WHEEL.is_dir():
        return _IN_CHECKOUT / what
    found = _in_extra(what)
    return _IN_WHEEL / what if found is None else found


def here_or_shipped(root: Path, what: str) -> Path:
    """The project's own, if it has one in the same place as a checkout, else the shipped one."""
    own = root / what
    return own if own.exists() else shipped(what)


def _in_extra(what: str) -> Path | None:
    """The same of the extra; None without it, and for one that another version asked for.

    pip updates the library alone if nobody names the extra again.
    """
    try:
        extra = distribution(_EXTRA)
    except PackageNotFoundError:
        return None
    found = Path(str(extra.locate_file("tinyablation_organisms")), what)
    return found if extra.version == __version__ and found.exists() else None
