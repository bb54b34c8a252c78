"""Pure numpy: intervals, tests, ratios, the bootstrap."""
