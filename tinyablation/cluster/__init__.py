"""Measuring on other machines."""
