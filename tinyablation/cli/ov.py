"""The commands `ov-report` and `ov-clusters`: what heads write, as JSON files."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyablation.cli.data import add_data_options, data_of
from tinyablation.cli.measure import (
    add_bench_options,
    add_heads_option,
    add_output_options,
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
    add_data_options(report)
    add_bench_options(report, store=False, named=False)
    add_heads_option(report, "--heads", "such as L0H2 (default: all)")
    report.add_argument(
        "--split",
        choices=(*SPLITS, ALL),
        help=f"of a condition of this project (default: {SPLITS[0]}); a config names its own",
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
    for name in ("model", "condition"):
        clusters.add_argument(
            f"--{name}",
            nargs="+",
            metavar="NAME",
            help=f"the {name} of each REPORT, in their order; of reports of the study, which do "
            "not say it (one NAME: of all of them)",
        )
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
    if options.config is not None and options.split is not None:
        raise TinyAblationError(f"--split {options.split}: the split is that of --config")
    # Nothing is kept in the bench's store: the report is the output.
    bench, condition, split = data_of(options)
    asked = split or options.split or SPLITS[0]
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
    prompts = bench.prompts(condition, None if asked == ALL else asked)[: options.samples]
    from tinyablation.engine.head_outputs import measure_ov

    document = measure_ov(
        bench.engine,
        prompts,
        condition=condition,
        split=asked,
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

    count = len(options.reports)
    given = {name: _each(name, getattr(options, name), count) for name in ("model", "condition")}
    # One name for several reports is of those that do not say theirs.
    exact = {name for name in given if len(getattr(options, name) or ()) == count}
    reports = []
    for index, path in enumerate(options.reports):
        said = {name: names[index] for name, names in given.items() if names}
        report = _completed(path, read_json(path), said, exact=exact)
        try:
            check_report(report)
        except ComparisonError as error:
            raise ComparisonError(f"{path}: {error}") from None
        reports.append(report)
    put(cluster_tokens(reports, limit=options.limit, top_n=options.top_n), options)


def _each(name: str, names: Sequence[str] | None, count: int) -> list[str]:
    """One name for each report; [] if none is given."""
    if not names:
        return []
    if len(names) not in (1, count):
        raise TinyAblationError(f"--{name}: {len(names)} names for {count} reports; give one each")
    return list(names) * (count if len(names) == 1 else 1)


def _completed(
    path: Path, report: dict[str, Any], said: Mapping[str, str], *, exact: Collection[str]
) -> dict[str, Any]:
    """A report with the model and condition that are said of it; TinyAblationError if none is.

    The reports of the study name neither, or the condition as `tag`, and may hold their heads by
    name instead of in a list. exact: of these, what is said must be what the report says itself.
    """
    found = dict(report)
    if "heads" not in found:
        return found  # no OV report, as its check says
    if isinstance(found.get("heads"), dict):
        found["heads"] = list(found["heads"].values())
    if "condition" not in found and isinstance(found.get("tag"), str):
        found["condition"] = found["tag"]
    for name in ("model", "condition"):
        own = found.get(name)
        if isinstance(own, dict):  # as configs describe a model
            own = found[name] = own.get("name")
        if not isinstance(own, str):
            if name not in said:
                raise TinyAblationError(
                    f"{path}: does not say its {name}, as reports of the study; give --{name}"
                )
            found[name] = said[name]
        elif name in exact and said[name] != own:
            raise TinyAblationError(f"{path}: is of {name} {own!r}, not {said[name]!r} (--{name})")
    return found
