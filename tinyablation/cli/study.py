"""The commands `run` and `migrate`: the study's configs, measured or translated."""

import argparse
import copy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinyablation.characters import printable
from tinyablation.cli.measure import DTYPES, REGISTRY, RUNS, bench_of

SIGN = (
    "in head_impact and layer_impact, logit_diff is LD ablated - LD clean: suppressors have the "
    "largest, so list them by nlargest; nsmallest lists the heads that carry the answer"
)

if TYPE_CHECKING:
    from tinyablation.corpora.own_conditions import OwnCondition
    from tinyablation.measurement.bench import Bench
    from tinyablation.study.measuring import Wanted


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register both commands."""
    run = commands.add_parser(
        "run",
        help="measure what a run config of the study asks for",
        description="Reads a run config (single or cross-condition), its battery and its data, and "
        "measures what it asks for with this project's instruments. Prints the directory of each "
        "run, the parent's last; what is not done as the config asks is said on stderr, with the "
        "reason, and stands in manifest.json.",
    )
    add_config_options(run)
    run.add_argument(
        "--model", metavar="ID_OR_PATH", help="measure this model instead of the config's"
    )
    run.add_argument("--revision", metavar="NAME", help="of a hub model, instead of the config's")
    run.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps, instead of the config's")
    run.add_argument("--dtype", choices=DTYPES, help="instead of the config's")
    run.add_argument(
        "--registry", type=Path, default=REGISTRY, help="models.toml (default: %(default)s)"
    )
    run.add_argument("--runs", type=Path, default=RUNS, help="default: %(default)s")
    run.add_argument(
        "--remeasure",
        action="store_true",
        help="move a stored measurement whose files were changed aside, and measure it again",
    )
    run.set_defaults(run=_run)

    migrate = commands.add_parser(
        "migrate",
        help="print what a run config of the study comes to here",
        description="Prints the claims that a config's battery belongs to, and the commands that "
        "measure and judge the same here. Nothing is measured; no model is needed.",
    )
    add_config_options(migrate)
    migrate.set_defaults(run=_migrate)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """CONFIG and --root."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a run config, JSON")
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="the folder that has lab/, to which paths in the config are relative (default: the "
        "nearest above CONFIG, else the working directory)",
    )


def _run(options: argparse.Namespace) -> None:
    from tinyablation.runs.store import RunStore
    from tinyablation.study.config import read_config
    from tinyablation.study.measuring import Instead, measure

    config = read_config(options.config, options.root)
    instead = Instead(options.model, options.revision, options.device, options.dtype)

    def made(wanted: "Wanted", own: "dict[str, OwnCondition]") -> "Bench":
        chosen = copy.copy(options)
        for name in ("model", "revision", "device", "dtype", "seed"):
            setattr(chosen, name, getattr(wanted, name))
        chosen.corpora = config.root  # its only conditions are those of the config
        return bench_of(chosen, own=own)

    said: set[str] = set()  # what concerns every condition is said once

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            _say(line)

    store = RunStore(options.runs, remeasure=options.remeasure)
    measure(config, store, made, instead, say=say, done=lambda path: print(path, flush=True))
    _say(SIGN)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _migrate(options: argparse.Namespace) -> None:
    from tinyablation.study.config import read_config
    from tinyablation.study.equivalents import equivalents

    print(printable("\n".join(equivalents(read_config(options.config, options.root)))))
