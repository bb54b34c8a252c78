"""Bundles that can be judged again without weights."""
