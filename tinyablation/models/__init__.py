"""Which models there are, where they come from, and where in memory they are."""
