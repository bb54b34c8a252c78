"""The instruments that claims are judged with; importable without pytest."""

__version__ = "0.3.0"
