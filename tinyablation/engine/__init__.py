"""From a model and prompts to a table of figures, exactly."""
