"""What is measured of one model: planned, computed, verified."""
