"""The ablation of a head that leaves its copy suppression.

Run: pytest tests/engine/test_copy_suppression.py
"""

from typing import Any

import numpy as np
import pytest
import torch

from tests.bridging import make_prompts
from tests.conftest import FAMILIES, N_LAYERS
from tinyablation.engine.copy_suppression import CopySuppression, kept_tokens
from tinyablation.engine.hook_backends import BackendError, BridgeHooks, Case, PlainHooks
from tinyablation.engine.hook_changes import Changes
from tinyablation.interventions.copy_suppression import KeepCopySuppression
from tinyablation.interventions.interventions import AblateHeads, PatchPath

SAME = 2e-5  # logits: float32 sums in another order
PROMPTS = make_prompts([6, 9])
# One whose tokens recur, and that begins as another does, so that prompts would share a pack.
PROMPTS += [PROMPTS[1]._replace(ids=PROMPTS[1].ids[:5] + PROMPTS[1].ids[2:5])]
REFERENCE = make_prompts([6, 9, 13, 4], seed=1)
WAYS = [
    KeepCopySuppression((head,), share, direct)
    for head in ((1, 2), (N_LAYERS - 1, 3))
    for share in (0.05, 0.4)
    for direct in (False, True)
]

first_family = pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES[1:])]
)


def differences(engine: Any, interventions: Any) -> Any:
    table = engine.measure(PROMPTS, interventions, reference=REFERENCE)
    return table.pivot(index="intervention", columns="example", values="logit_diff")


@first_family
def test_rows_are_what_a_bridge_says_of_one_prompt_alone(
    family: str, engines: Any, tiny_models: Any
) -> None:
    """Its attention weights and values, source by source, in plain loops."""
    means = [AblateHeads((head,), "mean") for head in ((1, 2), (N_LAYERS - 1, 3))]
    found = differences(engines[family], [*WAYS, *means])
    changes = Changes(
        BridgeHooks(tiny_models[family]), reference=[each.ids for each in REFERENCE], bos_id=0
    )
    for way in WAYS:
        for example, prompt in enumerate(PROMPTS):
            case = Case(prompt.ids, prompt.target, prompt.foil, {})
            due = changes.changed(case, way)
            where = f"{way.label}, example {example}"
            assert found.loc[way.label, example] == pytest.approx(due, abs=SAME), where
    mean = found.loc[[way.label for way in means]]
    for way in WAYS[2::4]:  # what is kept matters, and is not all
        kept = found.loc[way.label]
        assert (kept - mean.loc[AblateHeads(way.heads, "mean").label]).abs().max() > 100 * SAME
        assert (kept - found.loc["baseline"]).abs().max() > 100 * SAME
    with pytest.raises(BackendError, match="inside a module"):
        Changes(PlainHooks(tiny_models[family]), reference=changes.reference, bos_id=0).changed(
            Case(PROMPTS[0].ids, 1, 2, {}), WAYS[0]
        )


@first_family
def test_where_nothing_is_kept_it_is_mean_ablation(
    family: str, engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: Any, calls: Any, ids: Any, residual: Any, *_: Any) -> torch.Tensor:
        return torch.zeros_like(residual)

    monkeypatch.setattr(CopySuppression, "written", none)
    heads = ((1, 2),)
    pairs = {
        KeepCopySuppression(heads): AblateHeads(heads, "mean"),
        KeepCopySuppression(heads, direct=True): PatchPath(heads, N_LAYERS, "mean"),
    }
    found = differences(engines[family], [*pairs, *pairs.values()])
    for way, mean in pairs.items():
        np.testing.assert_allclose(found.loc[way.label], found.loc[mean.label], atol=SAME)


@first_family
def test_directions_are_what_moves_a_tokens_logit_against_all_others(
    family: str, engines: Any
) -> None:
    """By automatic differentiation of the model's own final norm and unembedding."""
    arch = engines[family].architecture
    hidden = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens = (3, 17, 3)
    norm, unembed = arch.final_norm, arch.unembed

    def logits(stream: torch.Tensor) -> torch.Tensor:
        values = unembed(norm(stream.float())).double()
        return values - values.mean()

    jacobian = torch.autograd.functional.jacobian(logits, hidden)
    (found,) = CopySuppression(arch).directions([tokens])
    # Along the stream itself the norm leaves nothing, and it divides by its scale.
    around = hidden - hidden.mean() if found.mean(dim=1).abs().max() < 1e-6 else hidden
    unit = around / around.norm()
    projected = found - (found @ unit)[:, None] * unit
    scale = around.norm() / 32**0.5
    torch.testing.assert_close(
        projected / scale, jacobian[list(tokens)].double(), atol=1e-3, rtol=1e-3
    )


def test_the_most_predicted_tokens_are_kept_wherever_they_stand() -> None:
    ids = [(5, 7, 5, 9)]
    logits = torch.tensor([[[1.0, 9, 1, 9], [2, 1, 2, 9], [1, 3, 1, 9], [4, 1, 4, 3]]])
    kept = kept_tokens(logits.double(), ids, 0.3)  # of 1, 2, 3, 4 tokens: 1, 1, 1, 2
    assert kept[0].int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 1]]
    assert kept_tokens(logits.double(), ids, 1.0)[0].equal(torch.ones(4, 4).tril().bool())
