"""The command line: `python -m tinyablation COMMAND`; each command has --help."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyablation.cli.bundle import add_commands as add_bundle_commands
from tinyablation.cli.check import add_check_command
from tinyablation.cli.compare import add_commands as add_compare_commands
from tinyablation.cli.export import add_export_command
from tinyablation.cli.measure import add_commands
from tinyablation.cli.new_claim import add_new_claim_command
from tinyablation.cli.ov import add_commands as add_ov_commands
from tinyablation.cli.partial_patch import add_commands as add_partial_patch_commands
from tinyablation.cli.report import add_commands as add_report_commands
from tinyablation.cli.statuses import status_of
from tinyablation.cli.study import add_commands as add_study_commands
from tinyablation.cluster.cost import add_commands as add_planning_commands
from tinyablation.errors import TinyAblationError

NATURAL, EMBEDDED = "natural", "embedded"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tinyablation", description="Tools beside `pytest claims`."
    )
    top.add_argument(
        "--full-trace", action="store_true", help="show where an error was raised, not one line"
    )
    commands = top.add_subparsers(dest="command", required=True)
    corpora = commands.add_parser("corpora", help="corpora and splits for a tokenizer")
    actions = corpora.add_subparsers(dest="action", required=True)
    build = actions.add_parser(
        "build",
        help="render the knowledge tables for one tokenizer",
        description="Writes <output>/<name>/<condition>.jsonl and .split.json for the four "
        "conditions and for binding, and reports how many examples were dropped and why. A "
        "manifest records the tokenizer, so that each model gets the corpora of its own tokenizer.",
    )
    _add_tokenizer(build)
    build.add_argument(
        "--name", help="the corpus folder's name (default: the last part of PATH_OR_ID)"
    )
    build.add_argument("--output", type=Path, default=Path("corpora"), help="default: %(default)s")
    build.add_argument(
        "--knowledge",
        type=Path,
        default=Path("corpora/knowledge"),
        help="folder of the knowledge tables (default: %(default)s)",
    )
    build.add_argument(
        "--world",
        choices=(NATURAL, EMBEDDED),
        default=NATURAL,
        help="what the prompts are about: natural, for language models; embedded, for the small "
        "models under fixtures/organisms (default: %(default)s)",
    )
    build.add_argument(
        "--seed", type=int, default=0, help="seed of pairs and splits (default: %(default)s)"
    )
    build.set_defaults(run=_build)
    adopt = actions.add_parser(
        "adopt",
        help="record which tokenizer existing corpora were built for",
        description="Writes the manifest of the corpora in FOLDER; the corpora are not changed.",
    )
    adopt.add_argument("folder", type=Path, metavar="FOLDER", help="contains <condition>.jsonl")
    _add_tokenizer(adopt)
    adopt.set_defaults(run=_adopt)
    add_commands(commands)
    add_partial_patch_commands(commands)
    add_study_commands(commands)
    add_ov_commands(commands)
    add_compare_commands(commands)
    add_planning_commands(commands)
    add_report_commands(commands)
    add_export_command(commands)
    add_bundle_commands(commands)
    add_check_command(commands)
    add_new_claim_command(commands)
    return top


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="PATH_OR_ID",
        help="a folder with a Hugging Face tokenizer, or the id of one on the hub",
    )


def _build(options: argparse.Namespace) -> None:
    from tinyablation.corpora.binding import load_binding
    from tinyablation.corpora.builder import build_everything
    from tinyablation.corpora.corpus_folder import (
        BUILDER,
        EMBEDDED_BUILDER,
        knowledge_hash,
        natural_hash,
        put_on_shelf,
    )
    from tinyablation.corpora.knowledge import load_knowledge
    from tinyablation.corpora.natural import build_natural
    from tinyablation.corpora.tokenisation import load_tokenizer

    if options.seed < 0:
        raise TinyAblationError(f"--seed {options.seed}: give 0 or more")
    name = options.name or _folder_name(options.tokenizer)
    if not name or name.startswith(".") or set(name) & set("/\\"):
        raise TinyAblationError(f"--name {name!r}: give the name of a folder, not a path")
    tokenizer = load_tokenizer(options.tokenizer)
    builder = EMBEDDED_BUILDER if options.world == EMBEDDED else BUILDER
    if options.world == EMBEDDED:
        knowledge = load_knowledge(options.knowledge)
        things = load_binding(options.knowledge)
        known = knowledge_hash(options.knowledge)
        built = build_everything(knowledge, things, tokenizer, name, seed=options.seed, strict=True)
    else:
        known = natural_hash(options.knowledge)
        built = build_natural(options.knowledge, tokenizer, name, seed=options.seed, strict=True)
    folder = options.output / name
    put_on_shelf(
        folder, built, tokenizer, name, knowledge=known, seed=options.seed, builder=builder
    )
    print(folder)
    print("\n".join(f"  {line}" for line in built.report.lines()))


def _adopt(options: argparse.Namespace) -> None:
    from tinyablation.corpora.corpus_folder import adopt
    from tinyablation.corpora.tokenisation import load_tokenizer

    if not options.folder.is_dir():
        raise TinyAblationError(f"{options.folder}: no such folder")
    shelf = adopt(options.folder, load_tokenizer(options.tokenizer))
    print(options.folder)
    for condition, made in shelf.manifest.conditions.items():
        print(f"  {condition}: {made.examples} examples")


def _folder_name(source: str) -> str:
    # "." and "gpt2/.." have no usable last part and would name the output folder itself.
    path = Path(os.path.expanduser(source))
    return path.resolve().name if path.is_dir() else path.name


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return status_of(lambda: options.run(options), full_trace=options.full_trace)


if __name__ == "__main__":
    sys.exit(main())
