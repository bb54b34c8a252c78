"""Student's t, from scipy.special: scipy.stats has the same, and takes .5 s to import.

Judging complete measurements is a matter of seconds, so that what it imports counts.
"""


def student_quantile(share: float, freedom: float) -> float:
    """The t below which a share of Student's distribution lies; freedom: degrees of it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def student_above(t: float, freedom: float) -> float:
    """The share of Student's distribution above t: the p of a one-sided test."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))
