"""The claims are judged by the project's own pytest plugin."""

pytest_plugins = ["tinyablation.plugin"]
