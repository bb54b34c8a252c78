"""What notebooks and scripts use: load a model, measure prompts, read verdicts and tables."""
