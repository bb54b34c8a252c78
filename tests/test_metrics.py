"""Figures from logits, against their definitions written out.

Run: pytest tests/test_metrics.py
"""

import math

import numpy as np
import pytest
import torch

from tinyablation.metrics import (
    FLOAT_FIGURES,
    INTEGER_FIGURES,
    distribution,
    divergence,
    figures,
)


def test_every_figure_by_hand() -> None:
    clean = distribution(torch.tensor([[0.0, 0.0, 0.0, 0.0]]))
    logits = torch.tensor([[math.log(4.0), 0.0, math.log(2.0), 0.0]])  # 4/8, 1/8, 2/8, 1/8
    ablated = distribution(logits)
    kl = divergence(clean, torch.tensor([0]), ablated)
    row, targets, foils = (
        torch.tensor([0, 0]),
        torch.tensor([2, 3]),
        torch.tensor([0, 1]),
    )
    found = figures(logits, ablated, kl, row, targets, foils)
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


def test_kl_is_directed_row_by_row_and_nothing_for_the_same() -> None:
    torch.manual_seed(0)
    a, b = distribution(torch.randn(3, 50)), distribution(5 * torch.randn(3, 50))
    row = torch.tensor([2, 0, 1])
    for i, j in enumerate(row):
        p, q = a.probabilities[j], b.log_probabilities[i]
        expected = torch.nn.functional.kl_div(q, p, reduction="sum").item()
        assert divergence(a, row, b)[i].item() == pytest.approx(expected, rel=1e-12)
    assert not torch.allclose(divergence(a, row, b), divergence(b, row, a))
    assert divergence(a, torch.arange(3), a).tolist() == [0.0, 0.0, 0.0]


def test_half_precision_kl_does_not_underflow() -> None:
    """P14: in fp16 this KL is 0 or NaN."""
    logits = torch.zeros(1, 1000, dtype=torch.float16)
    moved = logits.clone()
    moved[0, 0] = 0.01
    kl = divergence(distribution(logits), torch.tensor([0]), distribution(moved))
    assert kl.dtype == torch.float64 and 1e-8 < kl.item() < 1e-7


def test_large_logits_stay_finite() -> None:
    sharp, flat = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    a, b = distribution(sharp), distribution(flat)
    assert a.entropy.item() == 0.0
    assert divergence(a, torch.tensor([0]), b).item() == pytest.approx(2e4)
