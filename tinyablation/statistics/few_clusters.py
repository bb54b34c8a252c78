"""How many clusters an interval needs, and what one with fewer does about it.

Cheap to import: verdicts say how many clusters are enough.
"""

# From here on the studentised bootstrap of a mean keeps its errors at the lower end near .05 even
# where the long tail lies below (.049 of exponential, .047 of half unmoved clusters).
ENOUGH_CLUSTERS = 24
# With fewer it takes the quantiles of a confidence with this share of the error: of 12 such
# clusters .062 to .071 at nominal .025, .035 to .051 at nominal .01.
_SHARE_OF_ERROR = 0.4


def bootstrap_tail(confidence: float, n_clusters: int) -> float:
    """The probability beyond each end to take from a studentised bootstrap of n_clusters.

    (1 - confidence) / 2 of ENOUGH_CLUSTERS and more, four tenths of it of fewer.
    """
    tail = (1 - confidence) / 2
    return tail if n_clusters >= ENOUGH_CLUSTERS else _SHARE_OF_ERROR * tail
