"""Packs of claims that come with the library. In a wheel: `suppressors`, of claims/suppressors/."""
