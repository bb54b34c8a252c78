"""Fixtures for what heads attend to, and for what their weights would do with any token.

None uses a condition: the tokens are drawn from the model's vocabulary. Under the published
protocol, which has none of this, the claims are blocked.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tinyablation.analysis.attention import Attention
    from tinyablation.analysis.findings import Findings
    from tinyablation.analysis.successors import SuccessorScores
    from tinyablation.analysis.weight_diagonals import DiagonalShares

SOME_TOKENS = 1000  # rows of every head's circuits, to choose by; columns are the whole vocabulary


@pytest.fixture
def repeated_tokens(corrected: None, findings: "Findings") -> "Attention":
    """Attention on random tokens written twice: induction, duplicate and previous token, sink."""
    from tinyablation.measurement.attention_readings import RepeatedTokens

    return findings.attention(RepeatedTokens())


@pytest.fixture
def random_tokens(corrected: None, findings: "Findings") -> "Attention":
    """Attention on random tokens, all different: previous token, sink."""
    from tinyablation.measurement.attention_readings import RandomTokens

    return findings.attention(RandomTokens())


@pytest.fixture
def one_token(corrected: None, findings: "Findings") -> "Attention":
    """Attention on one random token written many times, without BOS: previous token, sink."""
    from tinyablation.measurement.attention_readings import OneToken

    return findings.attention(OneToken())


@pytest.fixture
def some_diagonals(corrected: None, findings: "Findings") -> "DiagonalShares":
    """Where some tokens stand in their own rows of every head's OV and QK circuits."""
    from tinyablation.measurement.diagonal_readings import WeightDiagonals

    return findings.diagonals(WeightDiagonals(n_tokens=SOME_TOKENS))


@pytest.fixture
def successor_scores(corrected: None, findings: "Findings") -> "SuccessorScores":
    """How often each head's OV circuit writes the word that follows the one attended to."""
    return findings.successors()
