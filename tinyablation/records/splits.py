"""The halves of a corpus: one to choose by, one to judge by."""

DISCOVERY, CONFIRMATION = "discovery", "confirmation"
SPLITS = (DISCOVERY, CONFIRMATION)
BOTH = "both"  # of what was chosen by neither, or by each for the other
