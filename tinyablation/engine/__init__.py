"""The measurement engine: from a model and prompts to an exact table of figures."""
