"""Rules of judgement, and what was predicted."""
