"""Packs of claims that come with the library. In a wheel: those of claims/."""
