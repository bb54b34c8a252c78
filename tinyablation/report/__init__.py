"""The page and other exports: a pure function of the records."""
