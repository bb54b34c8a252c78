"""What is imported, counted with python -X importtime; how long it takes, benchmarks/ measures.

Run: pytest tests/test_imports.py      (-m "not slow" leaves out what measures)
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What measures a model, or draws for a paper, and what judging would do without it: seconds each.
MEASURING = {"torch", "transformers", "transformer_lens", "accelerate", "huggingface_hub"}
DRAWING = {"matplotlib"}
STATISTICS = {"sklearn", "scipy.stats", "hypothesis"}
TABLES = {"pandas", "pyarrow", "scipy"}
WARM = MEASURING | DRAWING | STATISTICS
COLLECTING = WARM | TABLES

# module -> what importing it alone must not bring along
LIGHT = {
    **dict.fromkeys(
        (
            *("tinyablation", "tinyablation.interventions.batteries", "tinyablation.cli.measure"),
            *(
                "tinyablation.corpora.examples",
                "tinyablation.models.devices",
                "tinyablation.verdicts.predictions",
                "tinyablation.verdicts.published",
                "tinyablation.verdicts.subjects",
            ),
            *(
                "tinyablation.models.checkpoint",
                "tinyablation.models.hub",
                "tinyablation.interventions.interventions",
            ),
            *(
                "tinyablation.records.records",
                "tinyablation.models.registry",
                "tinyablation.verdicts.verdicts",
            ),
        ),
        COLLECTING | {"numpy"},
    ),
    **dict.fromkeys(
        (
            *(
                "tinyablation.analysis.calibration",
                "tinyablation.analysis.coalitions",
                "tinyablation.analysis.emergence",
            ),
            *(
                "tinyablation.analysis.effects",
                "tinyablation.engine.residual_steps",
                "tinyablation.analysis.head_vocabulary",
            ),
            *(
                "tinyablation.corpora.library",
                "tinyablation.models.loading",
                "tinyablation.measurement.bench",
            ),
            *(
                "tinyablation.sessions.false_discovery",
                "tinyablation.analysis.patching",
                "tinyablation.analysis.path_patching",
            ),
            *(
                "tinyablation.runs.heatmaps",
                "tinyablation.statistics.ratios",
                "tinyablation.runs.documents",
            ),
            *(
                "tinyablation.report.page",
                "tinyablation.runs.store",
                "tinyablation.statistics.intervals",
            ),
            *(
                "tinyablation.analysis.steering",
                "tinyablation.analysis.sweeps",
                "tinyablation.measurement.validity",
            ),
        ),
        COLLECTING,
    ),
}


SESSION = ("-m", "pytest", "claims", "-s")  # captured, stderr would not be what Python wrote


def imported(*arguments):
    """The modules that a Python process imported, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)), done.stdout


def test_imports_are_counted():
    found, _ = imported("-c", "import tinyablation.statistics.bootstrap")
    assert {"tinyablation.statistics.bootstrap", "numpy"} <= found


@pytest.mark.parametrize("module", LIGHT)
def test_modules_that_are_light(module):
    found, _ = imported("-c", f"import {module}")
    assert module in found
    assert not found & LIGHT[module]


@pytest.mark.slow  # a session of its own
def test_collecting_the_claims_imports_nothing_heavy():
    found, text = imported(*SESSION, "--collect-only", "-q")
    assert re.search(r"^\d+(/\d+)? tests collected", text, re.MULTILINE)
    assert {
        "tinyablation.records.records",
        "tinyablation.analysis.sweeps",
    } <= found  # of plugins, of claims
    assert not found & COLLECTING


# A claim of each kind: sweep, methods, head sets, paths, readings, step norms, calibration. The
# validity gate, the corpora and the report come with any.
KINDS = (
    *("top_suppressor_is_in_layer_zero", "no_other_trio_does_as_well", "path_mediates_most"),
    *("named_head_writes_hedges", "early_step_norm", "improves_calibration"),
)


@pytest.mark.slow  # measures for half a minute, then judges
def test_a_warm_session_imports_neither_model_libraries_nor_their_like(tmp_path):
    """Measured once, a cell is judged from its tables with numpy, pandas and scipy.special."""
    cells = f"tiny-gpt2 and facts and not plain and ({' or '.join(KINDS)})"
    session = (*SESSION, "-q", "-k", cells, "--reports", str(tmp_path))
    cold, _ = imported(*session)
    assert (
        "torch" in cold
        and {"tinyablation.engine.engine", "tinyablation.engine.head_outputs"} <= cold
    )
    before = sorted(path.name for path in (tmp_path / "runs").iterdir())
    warm, text = imported(*session)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == before
    assert f"{len(KINDS)} test cases" in text and "error" not in text
    assert {"pandas", "tinyablation.report.page"} <= warm
    from tinyablation.models.devices import look

    built = look().torch
    # With CUDA in it, torch is asked whether there is a GPU.
    assert not warm & (WARM if built.endswith("+cpu") else WARM - {"torch"})
