"""The commands of `python -m tinyablation`."""
