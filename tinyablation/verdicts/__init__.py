"""Rules that turn figures into verdicts, and the registered predictions."""
