"""Packs of claims that come with the library: a wheel has those of claims/ here."""
