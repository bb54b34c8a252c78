"""The registry of models, how their files are obtained, and where in memory they are placed."""
