"""Knowledge tables, the examples and splits built from them, and their tokenisation."""
