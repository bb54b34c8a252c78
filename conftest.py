"""Registers the fixture modules; what each does stands in its docstring.

A module comes after those it imports: pytest rewrites its assertions as it loads it here.
"""

pytest_plugins = [
    "fixtures.arguments",
    "fixtures.roster",
    "fixtures.environment",
    "fixtures.conditions",
    "fixtures.selection",
    "fixtures.defects",
    "fixtures.subjects",
    "fixtures.suggestions",
    "fixtures.scheduling",
    "fixtures.completeness",
    "fixtures.snapshots",
    "fixtures.expectations",
    "fixtures.multiverse",
    "fixtures.boundary",
    "fixtures.robustness",
    "fixtures.backends",
    "fixtures.screening",
    "fixtures.registered",
    "fixtures.scope",
    "fixtures.judging",
    "fixtures.availability",
    "fixtures.blocked",
    "fixtures.cards",
    "fixtures.report",
    "fixtures.models",
    "fixtures.measurements",
    "fixtures.derived",
    "fixtures.readings",
]
