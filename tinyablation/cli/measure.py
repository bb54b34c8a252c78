"""Commands over runs: `measure`, `rebuild-cross-condition`, `seeds`; and options they share.

Thin: each builds a bench or opens runs, asks the library, and writes JSON.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyablation.corpora.examples import CONDITIONS
from tinyablation.errors import TinyAblationError
from tinyablation.interventions.listed import NAMES
from tinyablation.spelling import SLIP, nearest

if TYPE_CHECKING:
    from tinyablation.cluster.dispatch import Dispatch
    from tinyablation.corpora.own_conditions import OwnCondition
    from tinyablation.heads import Head
    from tinyablation.measurement.bench import Bench
    from tinyablation.models.registry import ModelEntry
    from tinyablation.runs.store import Run, RunStore

REGISTRY = Path("fixtures/models.toml")
RUNS = Path("reports/runs")
DTYPES = ("float32", "bfloat16", "float16")


class CommandError(TinyAblationError):
    """The command line asks for something that cannot be done; the message says what to give."""


# --- options and steps that several commands share -----------------------------------------------


def add_bench_options(
    parser: argparse.ArgumentParser, *, store: bool = True, named: bool = True
) -> None:
    """--model, --condition, where things are and what computes.

    store: whether anything is kept (--runs); named: whether one model and one condition are named
    by options.
    """
    if named:
        _add_names(parser)
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of a hub model (default: main)"
    )
    parser.add_argument(
        "--registry", type=Path, default=REGISTRY, help="models.toml (default: %(default)s)"
    )
    parser.add_argument(
        "--corpora", type=Path, default=Path("corpora"), help="default: %(default)s"
    )
    if store:
        parser.add_argument(
            "--runs",
            type=Path,
            default=RUNS,
            help="store of measurements, shared with `pytest claims` (default: %(default)s)",
        )
        parser.add_argument(
            "--remeasure",
            action="store_true",
            help="move a stored measurement whose files were changed aside, and measure it again",
        )
    else:
        parser.set_defaults(runs=RUNS, remeasure=False)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (default: %(default)s: cuda, else mps, else cpu)",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="default: that of the model's entry")


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="ID_OR_PATH",
        help="a registered id, a model folder, or a repository of the hub",
    )
    parser.add_argument(
        "--condition", required=True, help=f"{', '.join(CONDITIONS[:-1])} or {CONDITIONS[-1]}"
    )


def add_output_options(parser: argparse.ArgumentParser, what: str = "") -> None:
    """--output and --force; what: the file that has to be named, "" where it need not be."""
    said = what or "file to write (default: standard output)"
    parser.add_argument("-o", "--output", type=Path, required=bool(what), metavar="FILE", help=said)
    parser.add_argument("--force", action="store_true", help="write over what exists")


def add_heads_option(
    parser: argparse.ArgumentParser, name: str, said: str, nargs: int | str = "+"
) -> None:
    """An option that takes heads; required where it takes a number of them."""
    required = isinstance(nargs, int)
    parser.add_argument(
        name, nargs=nargs, type=head_of, required=required, metavar="HEAD", help=said
    )


def head_of(text: str) -> "Head":
    from tinyablation.heads import Head

    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def entry_of(options: argparse.Namespace) -> "ModelEntry":
    """The entry of the model that --model and --revision name.

    A model's folder or file needs no registry file; anything else is looked up there first.
    """
    from tinyablation.models.registry import Registry, load_registry

    is_path = os.path.exists(os.path.expanduser(options.model))  # False for a name too long
    registry = (
        Registry(options.registry, {})
        if is_path and not options.registry.is_file()
        else load_registry(options.registry)
    )
    entry = registry.named(options.model, options.revision)
    # Few repositories have no owner: a slip of the pen is not asked of the hub.
    if entry.repo == options.model and "/" not in options.model and entry.id not in registry:
        close = nearest(options.model, registry.ids, SLIP)
        if close is not None:
            raise CommandError(
                f"--model {options.model}: no model has this id; did you mean {close!r}? (A "
                "repository of the hub is named OWNER/NAME)"
            )
    return entry


def bench_of(
    options: argparse.Namespace,
    *,
    device: str = "",
    own: "Mapping[str, OwnCondition] | None" = None,
    elsewhere: "Dispatch | None" = None,
) -> "Bench":
    """The bench that add_bench_options describe.

    device: another than --device comes to here; own: conditions from files.
    """
    if options.seed < 0:
        raise CommandError(f"seed {options.seed}: give 0 or more")
    from tinyablation.measurement.bench import Bench
    from tinyablation.measurement.setup import Setup
    from tinyablation.models.devices import choose_device
    from tinyablation.runs.store import RunStore

    setup = Setup(
        entry=entry_of(options),
        corpora=options.corpora,
        seed=options.seed,
        device=device or choose_device(options.device),
        dtype=options.dtype,
        share=getattr(options, "share", 1.0),
    )
    return Bench(
        setup,
        RunStore(options.runs, remeasure=options.remeasure),
        own=own,
        progress=True,
        elsewhere=elsewhere,
    )


def refuse_overwriting(options: argparse.Namespace) -> None:
    """CommandError where --output exists and --force is not given; asked before measuring, too."""
    if options.output is not None and options.output.exists() and not options.force:
        raise CommandError(f"{options.output} exists; give --force to write over it")


def put(document: Any, options: argparse.Namespace) -> None:
    """Write a JSON document where --output says."""
    put_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", options)


def put_text(text: str, options: argparse.Namespace) -> None:
    """Write text where --output says, atomically, never over a file without --force."""
    if options.output is None:
        print(text, end="")
        return
    from tinyablation.files.manifests import write_atomic

    refuse_overwriting(options)
    try:
        write_atomic(options.output, lambda stream: stream.write(text.encode("utf-8")))
    except OSError as error:
        raise CommandError(f"{options.output}: cannot be written ({error.strerror})") from error
    print(options.output)


# --- over run directories, and one battery --------------------------------------------------------


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the commands of this module."""
    rebuild = commands.add_parser(
        "rebuild-cross-condition",
        help="write head_matrix and layer_matrix from single-condition runs",
        description="Combines complete runs of one model and battery, one a condition, into "
        "artifacts/cross_condition/{head_matrix,layer_matrix}.parquet of a parent run beside them.",
    )
    rebuild.set_defaults(run=rebuild_cross_condition)

    seeds = commands.add_parser(
        "seeds",
        help="summarise runs that differ in their seed only",
        description="Writes a run over seeds: metrics/summary.json with mean, ci95 and values of "
        "every metric, and metrics/head_impact.parquet with the rows of all seeds.",
    )
    for over_runs in (rebuild, seeds):
        over_runs.add_argument("directories", nargs="+", type=Path, metavar="RUN")
    seeds.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="of the baseline's figures (default: all; one that is the same for every seed is an "
        "error, for then the seed drew nothing)",
    )
    seeds.set_defaults(run=summarise_seeds)

    measure = commands.add_parser(
        "measure",
        help="measure one battery, with one seed or several",
        description="Measures a battery under one condition for each seed; with --share below 1 "
        "each seed draws its own fact clusters, and the runs can be given to `seeds`.",
    )
    add_bench_options(measure)
    measure.add_argument(
        "--battery", default="zero", help=f"{', '.join(NAMES)} (default: %(default)s)"
    )
    measure.add_argument("--layer", type=int, metavar="N", help="of pairs and triples: whose heads")
    add_heads_option(
        measure, "--heads", "of sets: the heads whose subsets are zeroed; of head and path: the one"
    )
    measure.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: --seed")
    measure.add_argument(
        "--share", type=float, default=1.0, help="of the fact clusters (default: %(default)s)"
    )
    measure.add_argument(
        "--executor",
        default="local",
        metavar="URL",
        help="who measures: local, dask://HOST:PORT, slurm://PARTITION?OPTIONS or "
        "processes:// (default: %(default)s)",
    )
    measure.set_defaults(run=measure_battery)


def rebuild_cross_condition(options: argparse.Namespace) -> None:
    """Write the matrices over conditions, and say where."""
    from tinyablation.runs.across_conditions import write_cross_condition

    store, runs = open_runs(options.directories)
    by_condition: dict[str, Run] = {}
    for run in runs:
        if run.config.condition in by_condition:
            other = by_condition[run.config.condition].name
            raise CommandError(f"{run.name} and {other} are of one condition; give one of them")
        by_condition[run.config.condition] = run
    print(write_cross_condition(store, by_condition))


def summarise_seeds(options: argparse.Namespace) -> None:
    """Write the run over seeds, and say where."""
    from tinyablation.runs.across_seeds import write_seeds

    store, runs = open_runs(options.directories)
    print(write_seeds(store, runs, options.metrics))


def measure_battery(options: argparse.Namespace) -> None:
    """Measure, or find, one run a seed, and say where each is."""
    from tinyablation.cluster.dispatch import device_of, dispatching
    from tinyablation.cluster.executors import parse
    from tinyablation.interventions.listed import named, require_options

    require_options(options.battery, options.layer, options.heads or ())
    address = parse(options.executor)
    with dispatching(address, options.runs, progress=True, say=_say) as elsewhere:
        device = "" if elsewhere is None else device_of(address, elsewhere, options.device)
        benches = []
        for seed in options.seeds or [options.seed]:
            options.seed = seed
            bench = bench_of(options, device=device, elsewhere=elsewhere)
            shape = (bench.facts.n_layers, bench.facts.n_heads)
            chosen = named(options.battery, *shape, layer=options.layer, heads=options.heads or ())
            bench.ahead(options.condition, chosen)
            benches.append((bench, chosen))
        for bench, chosen in benches:
            print(bench.run(options.condition, chosen).path)
            bench.release()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def open_runs(directories: Sequence[Path]) -> tuple["RunStore", list["Run"]]:
    """Complete runs of one store, or those that directories of `run` are made from.

    CommandError when they lie in different folders.
    """
    from tinyablation.runs.store import RunStore
    from tinyablation.study.directories import measured_in

    folders = [measured_in(directory.resolve()) for directory in directories]
    roots = sorted({folder.parent for folder in folders})
    if len(roots) > 1:
        raise CommandError(
            f"runs lie in {roots[0]} and {roots[1]}; give runs of one folder, copy them together"
        )
    store = RunStore(roots[0])
    return store, [store.open(folder.name) for folder in folders]
