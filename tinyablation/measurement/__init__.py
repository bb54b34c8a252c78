"""Measurements of one model: planned, computed, verified."""
