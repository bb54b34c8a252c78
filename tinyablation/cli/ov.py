"""The commands `ov-report` and `ov-clusters`: what heads write, as JSON files."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinyablation.cli.measure import (
    add_bench_options,
    add_heads_option,
    add_output_options,
    bench_of,
    put,
    refuse_overwriting,
)
from tinyablation.corpora.examples import SPLITS
from tinyablation.errors import TinyAblationError

ALL = "all"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register both commands."""
    report = commands.add_parser(
        "ov-report",
        help="the tokens that heads write, and the words they lean to",
        description="Measures the mean output of heads at the last token of a condition's prompts "
        "and writes a JSON report: by head the norm, the tokens at both ends, its OV circuit, and "
        "how it leans to hedges and boosters, against all heads of the model.",
    )
    add_bench_options(report, store=False)
    add_heads_option(report, "--heads", "such as L0H2 (default: all)")
    report.add_argument(
        "--split", choices=(*SPLITS, ALL), default=SPLITS[0], help="default: %(default)s"
    )
    report.add_argument(
        "--top-k", type=int, default=150, help="tokens in each list (default: %(default)s)"
    )
    report.add_argument(
        "--lexicons",
        type=Path,
        help="word lists (default: knowledge/lexicons.toml of the corpora)",
    )
    add_output_options(report)
    report.set_defaults(run=_report)

    clusters = commands.add_parser(
        "ov-clusters",
        help="which tokens recur in several OV reports",
        description="Counts how often each token stands in the heads' lists of several reports of "
        "`ov-report`, and by which model, condition and head.",
    )
    clusters.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    clusters.add_argument(
        "--limit", type=int, default=100, help="tokens listed at either end (default: %(default)s)"
    )
    clusters.add_argument(
        "--top-n", type=int, default=50, help="tokens read of each list (default: %(default)s)"
    )
    add_output_options(clusters)
    clusters.set_defaults(run=_clusters)


def _report(options: argparse.Namespace) -> None:
    refuse_overwriting(options)
    if options.top_k < 1:
        raise TinyAblationError(f"--top-k {options.top_k}: give 1 or more")
    from tinyablation.corpora.lexicons import load_lexicons

    lexicons = load_lexicons(options.lexicons or options.corpora / "knowledge" / "lexicons.toml")
    bench = bench_of(options)  # nothing is kept in its store: the report is the output
    facts = bench.facts
    if options.top_k > facts.vocab_size:
        raise TinyAblationError(
            f"--top-k {options.top_k}: {bench.entry.id} has {facts.vocab_size} tokens"
        )
    for layer, head in options.heads or ():
        if layer >= facts.n_layers or head >= facts.n_heads:
            raise TinyAblationError(
                f"--heads {layer}:{head}: {bench.entry.id} has {facts.n_layers} layers of "
                f"{facts.n_heads} heads"
            )
    prompts = bench.prompts(options.condition, None if options.split == ALL else options.split)
    from tinyablation.engine.head_outputs import measure_ov

    document = measure_ov(
        bench.engine,
        prompts,
        condition=options.condition,
        split=options.split,
        lexicons=lexicons,
        top_k=options.top_k,
        layers_with_vectors=(),
        seed=options.seed,
    ).document
    if options.heads:
        rows = {(row["layer"], row["head"]): row for row in document["heads"]}
        document["heads"] = [rows[head] for head in dict.fromkeys(options.heads)]
    put(document, options)


def _clusters(options: argparse.Namespace) -> None:
    refuse_overwriting(options)
    from tinyablation.analysis.head_similarity import ComparisonError, check_report, cluster_tokens
    from tinyablation.files.manifests import read_json

    reports = [read_json(path) for path in options.reports]
    for path, report in zip(options.reports, reports, strict=True):
        try:
            check_report(report)
        except ComparisonError as error:
            raise ComparisonError(f"{path}: {error}") from None
    put(cluster_tokens(reports, limit=options.limit, top_n=options.top_n), options)
