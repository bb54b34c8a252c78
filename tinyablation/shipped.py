"""Where the models, corpora and tables lie that come with the library.

In a checkout they are its top-level folders, corpora/ and fixtures/; a wheel has copies of what a
first session needs under tinyablation/shipped/ (setup.py says which).
"""

from pathlib import Path

_IN_WHEEL = Path(__file__).with_name("shipped")
_IN_CHECKOUT = Path(__file__).parents[1]

CORPORA = "corpora"
MODELS = "fixtures/models.toml"
ERROR_RATES = "fixtures/calibration/error_rates.json"


def shipped(what: str) -> Path:
    """A file or folder that came with the library, by its path in a checkout."""
    return (_IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT) / what


def here_or_shipped(root: Path, what: str) -> Path:
    """The project's own, if it has one in the same place as a checkout, else the shipped one."""
    own = root / what
    return own if own.exists() else shipped(what)
