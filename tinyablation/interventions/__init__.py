"""Interventions on a model as frozen descriptions, and batteries of them."""
