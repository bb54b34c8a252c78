"""The data of a command: a condition of this project, or of a run config of the study."""

import argparse
import copy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tinyablation.cli.measure import CommandError, bench_of

if TYPE_CHECKING:
    from tinyablation.measurement.bench import Bench


class Data(NamedTuple):
    """A bench and the condition to measure; split: the dataset's one, None: the command's own."""

    bench: "Bench"
    condition: str
    split: str | None


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """--model and --condition, or --config with --tag; --samples."""
    parser.add_argument(
        "--model", metavar="ID_OR_PATH", help="as for `measure`; default: that of --config"
    )
    parser.add_argument("--condition", help="of this project; or give --config")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a run config of the study, for model and data"
    )
    parser.add_argument("--tag", help="the condition of a cross-condition --config")
    parser.add_argument(
        "--root", type=Path, metavar="FOLDER", help="the folder that has lab/, as for `run`"
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="the first N rows of the split only"
    )


def data_of(options: argparse.Namespace) -> Data:
    """What the options of add_data_options ask for; CommandError if they do not fit together."""
    from tinyablation.study.config import read_config
    from tinyablation.study.data import read_condition
    from tinyablation.study.measuring import Instead, wanted

    if options.samples is not None and options.samples < 1:
        raise CommandError(f"--samples {options.samples}: give 1 or more")
    if options.config is None:
        for name in ("model", "condition"):
            if getattr(options, name) is None:
                raise CommandError(
                    f"--{name} is missing: give --model and --condition, or --config"
                )
        if options.tag is not None:
            raise CommandError(f"--tag {options.tag}: is of a --config, which is missing")
        return Data(bench_of(options), options.condition, None)
    if options.condition is not None:
        raise CommandError("--condition and --config: give one of them (--tag is a config's)")
    config = read_config(options.config, options.root)
    tags = [request.tag for request in config.requests]
    found = [each for each in config.requests if each.tag == (options.tag or "")]
    if not found:
        has = f"has conditions {', '.join(tags)}" if config.is_crossed else "is of one condition"
        asked = "no --tag" if options.tag is None else f"--tag {options.tag}"
        raise CommandError(f"{asked}: {options.config} {has}; name one of its own")
    device = None if options.device == "auto" else options.device
    instead = Instead(options.model, options.revision, device, options.dtype)
    need = wanted(found[0], instead)
    condition = read_condition(found[0], config.root, one_token=True, most=options.samples)
    chosen = copy.copy(options)
    for name in ("model", "revision", "device", "dtype"):
        setattr(chosen, name, getattr(need, name))
    bench = bench_of(chosen, own={condition.name: condition})
    return Data(bench, condition.name, condition.halves[0])
