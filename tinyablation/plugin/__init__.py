"""The pytest plugin, which turns functions with a claim mark into judged test cases.

PYTEST_DONT_REWRITE

`entry` is what pytest loads in every session (entry point pytest11), with `command_line` (the
options), `marks` and `claim_files` (test files with claims). The others are loaded where there are
claims:

what is asked   `options` (the command line, read), `settings` (what a project says of its claims),
                `packs` (of claims), `session_models`, `conditions`, `defects` (of the user's
                conditions), `subjects` (the heads that claims are about), `selection` (of test
                cases), `suggestions` (misspelt names), `screening_option` (`--screen`)
how it runs     `environment` (network, threads), `scheduling` (of models to workers),
                `report_guard` (every selected test reports once)
fixtures        `benches`, `measurement_fixtures`, `derived_fixtures`, `head_fixtures`,
                `attention_fixtures`: everything that uses weights and text
verdicts        `judge` (from a verdict to an outcome), `snapshots` (unchanged figures),
                `snapshot_summary` (which changed), `predictions` (and published figures),
                `first_registration` (predictions changed since), `scope` (what a verdict
                generalises over), `backend_checks` (plain hooks), `robustness` with `multiverse`
                (other analyses) and `boundary` (prompts on which a claim fails), `next_tokens`
reports         `availability` (missing models), `blocked_cells` (what could not be judged, and what
                to do), `model_cards`, `report` (records and page), `html_view` (pytest.html)

`evidence` is loaded by the commands that judge without weights. Nothing heavy is imported at module
level: `pytest claims --collect-only` must finish within two seconds.
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
