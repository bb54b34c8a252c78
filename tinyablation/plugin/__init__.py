"""The pytest plugin, which turns functions with a claim mark into judged test cases.

PYTEST_DONT_REWRITE

`options` (the command line), `session_models` (models of the session), `environment` (network,
threads), `conditions` (of the session), `selection` (which cells run), `defects` (of the user's
conditions), `subjects` (the heads claims are about), `suggestions` (misspelt names), `scheduling`
(assigns models to workers), `report_guard` (every selected test reports once), `snapshots` (figures
unchanged), `snapshot_summary` (which changed), `predictions` (registered and published figures),
`judge` (verdict to outcome), `availability` (missing models), `blocked_cells` (what could not be
judged, and what to do), `report` (records and pages); `benches`, `measurement_fixtures`,
`derived_fixtures`, `head_fixtures` and `attention_fixtures` provide everything that uses weights
and text.
`entry` is what pytest loads everywhere (entry point pytest11), with `command_line`, `marks` and
`claim_files`; `settings` is what a project says of its claims.
Nothing heavy is imported at module level: `pytest claims --collect-only` must finish within two
seconds. `evidence` is loaded by the commands that judge without weights.
"""

# A module comes after those it imports, because pytest rewrites assertions of modules it loads.
pytest_plugins = [
    "tinyablation.plugin.entry",
    "tinyablation.plugin.options",
    "tinyablation.plugin.session_models",
    "tinyablation.plugin.environment",
    "tinyablation.plugin.conditions",
    "tinyablation.plugin.selection",
    "tinyablation.plugin.defects",
    "tinyablation.plugin.multiverse",
    "tinyablation.plugin.subjects",
    "tinyablation.plugin.suggestions",
    "tinyablation.plugin.scheduling",
    "tinyablation.plugin.report_guard",
    "tinyablation.plugin.snapshots",
    "tinyablation.plugin.snapshot_summary",
    "tinyablation.plugin.predictions",
    "tinyablation.plugin.boundary",
    "tinyablation.plugin.robustness",
    "tinyablation.plugin.backend_checks",
    "tinyablation.plugin.screening_option",
    "tinyablation.plugin.first_registration",
    "tinyablation.plugin.scope",
    "tinyablation.plugin.judge",
    "tinyablation.plugin.availability",
    "tinyablation.plugin.blocked_cells",
    "tinyablation.plugin.model_cards",
    "tinyablation.plugin.report",
    "tinyablation.plugin.benches",
    "tinyablation.plugin.measurement_fixtures",
    "tinyablation.plugin.derived_fixtures",
    "tinyablation.plugin.head_fixtures",
    "tinyablation.plugin.attention_fixtures",
]
