"""Student's t distribution from scipy.special, because scipy.stats takes .5 s to import.

Judging complete measurements takes only seconds, so import time matters.
"""


def student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t at probability `share`; freedom: degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def student_above(t: float, freedom: float) -> float:
    """P(T > t) for Student's t: the p of a one-sided test; freedom: degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))


def critical_rho(n: int, alpha: float = 0.05) -> float:
    """The two-sided critical value of Spearman's rho of n >= 3 ranks.

    rho sqrt((n - 2) / (1 - rho^2)) is compared with Student's t on n - 2 (Kendall and Gibbons 1990,
    ch. 4): .497 for 16 ranks. Exact tables have .503 for 16, .700 for 9 and .738 for 8.
    """
    t = student_quantile(1 - alpha / 2, n - 2)
    return float(t / (n - 2 + t * t) ** 0.5)
