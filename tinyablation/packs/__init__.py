"""Packs of claims that come with the library. A wheel has `suppressors`, made of claims/."""
