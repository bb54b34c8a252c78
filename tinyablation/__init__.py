"""The instruments that claims are judged with; importable without pytest.

For notebooks and scripts: `import tinyablation as ta`, then `ta.load(PATH).sweep(prompts).top(3)`.
The names below are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyablation.api.checks import Check as Check
    from tinyablation.api.judging import judge_table as judge_table
    from tinyablation.api.model import Model as Model
    from tinyablation.api.model import load as load
    from tinyablation.api.patches import Patches as Patches
    from tinyablation.api.patches import Paths as Paths
    from tinyablation.api.prompts import Prompts as Prompts
    from tinyablation.api.sweeps import HeadSets as HeadSets
    from tinyablation.api.sweeps import Sweep as Sweep
    from tinyablation.api.verdict import Verdict as Verdict
    from tinyablation.api.written import Written as Written
    from tinyablation.errors import TinyAblationError as TinyAblationError
    from tinyablation.heads import Head as Head

__version__ = "0.3.0"

# name -> the module it is in
_MODULES = {
    "Check": "api.checks",
    "Head": "heads",
    "HeadSets": "api.sweeps",
    "Model": "api.model",
    "Patches": "api.patches",
    "Paths": "api.patches",
    "Prompts": "api.prompts",
    "Sweep": "api.sweeps",
    "TinyAblationError": "errors",
    "Verdict": "api.verdict",
    "Written": "api.written",
    "judge_table": "api.judging",
    "load": "api.model",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
