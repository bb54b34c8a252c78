"""Figures from logits, against their definitions written out.

Run: pytest tests/engine/test_logit_metrics.py
"""

import math

import numpy as np
import pytest
import torch

from tinyablation.engine.logit_metrics import (
    FLOAT_FIGURES,
    INTEGER_FIGURES,
    Distribution,
    distribution,
    divergence,
    figures,
)


def test_every_figure_by_hand() -> None:
    clean = distribution(torch.tensor([[0.0, 0.0, 0.0, 0.0]]))
    logits = torch.tensor([[math.log(4.0), 0.0, math.log(2.0), 0.0]])  # 4/8, 1/8, 2/8, 1/8
    ablated = distribution(logits)
    kl = divergence(clean.probabilities(), clean.entropy, ablated)
    row, targets, foils = (
        torch.tensor([0, 0]),
        torch.tensor([2, 3]),
        torch.tensor([0, 1]),
    )
    found = figures(ablated, kl, row, targets, foils)
    assert set(found) == {*FLOAT_FIGURES, *INTEGER_FIGURES}
    np.testing.assert_allclose(found["logit_diff"], [-math.log(2), 0.0], atol=1e-7)
    np.testing.assert_allclose(found["target_logit"], [math.log(2), 0.0], atol=1e-7)
    np.testing.assert_allclose(found["foil_logit"], [math.log(4), 0.0], atol=1e-7)
    np.testing.assert_allclose(found["target_probability"], [0.25, 0.125], atol=1e-7)
    assert found["target_rank"].tolist() == [1, 2]  # a tie does not count
    assert found["argmax"].tolist() == [0, 0]
    entropy = 0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)
    np.testing.assert_allclose(found["entropy"], entropy, atol=1e-6)
    expected = sum(0.25 * math.log(0.25 / p) for p in (0.5, 0.125, 0.25, 0.125))
    np.testing.assert_allclose(found["kl"], expected, atol=1e-6)
    assert all(found[name].dtype == np.float64 for name in FLOAT_FIGURES)


def kl_of(clean: Distribution, ablated: Distribution) -> torch.Tensor:
    return divergence(clean.probabilities(), clean.entropy, ablated)


def test_kl_is_directed_row_by_row_and_nothing_for_the_same() -> None:
    torch.manual_seed(0)
    clean, ablated = torch.randn(3, 50).double(), 5 * torch.randn(3, 50).double()
    a, b = distribution(clean), distribution(ablated)
    expected = torch.nn.functional.kl_div(
        ablated.log_softmax(-1), clean.softmax(-1), reduction="none"
    ).sum(-1)
    torch.testing.assert_close(kl_of(a, b), expected, rtol=1e-12, atol=0.0)
    assert not torch.allclose(kl_of(a, b), kl_of(b, a))
    assert (kl_of(a, a) >= 0).all() and (kl_of(a, a) < 1e-14).all()


def test_half_precision_kl_does_not_underflow() -> None:
    """P14: in fp16 this KL is 0 or NaN."""
    logits = torch.zeros(1, 1000, dtype=torch.float16)
    moved = logits.clone()
    moved[0, 0] = 0.01
    kl = kl_of(distribution(logits), distribution(moved))
    assert kl.dtype == torch.float64 and 1e-8 < kl.item() < 1e-7


def test_large_logits_stay_finite() -> None:
    sharp, flat = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    a, b = distribution(sharp), distribution(flat)
    assert a.entropy.item() == 0.0
    assert kl_of(a, b).item() == pytest.approx(2e4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_shows(bad: float) -> None:
    entropy = distribution(torch.tensor([[0.0, bad, 1.0], [0.0, 1.0, 2.0]])).entropy
    assert entropy.isfinite().tolist() == [False, True]
