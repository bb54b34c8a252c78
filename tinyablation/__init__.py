"""The instruments that claims are judged with; importable without pytest."""
