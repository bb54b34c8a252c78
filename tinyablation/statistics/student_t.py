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
