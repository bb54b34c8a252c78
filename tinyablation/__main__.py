"""The command line: `python -m tinyablation COMMAND`; each command has --help."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyablation.commands import add_commands
from tinyablation.errors import TinyAblationError
from tinyablation.ov_commands import add_commands as add_ov_commands


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tinyablation", description="Tools beside `pytest claims`."
    )
    commands = top.add_subparsers(dest="command", required=True)
    corpora = commands.add_parser("corpora", help="corpora and splits for a tokenizer")
    actions = corpora.add_subparsers(dest="action", required=True)
    build = actions.add_parser(
        "build",
        help="render the knowledge tables for one tokenizer",
        description="Writes <output>/<name>/<condition>.jsonl and .split.json for the four "
        "conditions and for binding, and says how many examples were dropped and why.",
    )
    build.add_argument(
        "--tokenizer",
        required=True,
        metavar="PATH_OR_ID",
        help="a folder with a Hugging Face tokenizer, or the id of one on the hub",
    )
    build.add_argument(
        "--name", help="the corpus folder's name (default: the last part of PATH_OR_ID)"
    )
    build.add_argument("--output", type=Path, default=Path("corpora"), help="default: %(default)s")
    build.add_argument(
        "--knowledge",
        type=Path,
        default=Path("corpora/knowledge"),
        help="folder of facts.toml, classes.toml, templates.toml and binding.toml "
        "(default: %(default)s)",
    )
    build.add_argument(
        "--seed", type=int, default=0, help="of pairs and splits (default: %(default)s)"
    )
    build.set_defaults(run=_build)
    add_commands(commands)
    add_ov_commands(commands)
    return top


def _build(options: argparse.Namespace) -> None:
    from tinyablation.binding import build_binding, load_binding
    from tinyablation.building import CorpusBuilder
    from tinyablation.corpora import write_corpus
    from tinyablation.knowledge import load_knowledge
    from tinyablation.tokenisation import load_tokenizer

    if options.seed < 0:
        raise TinyAblationError(f"--seed {options.seed}: give 0 or more")
    name = options.name or _folder_name(options.tokenizer)
    if not name or name in (".", "..") or set(name) & set("/\\"):
        raise TinyAblationError(f"--name {name!r}: give the name of a folder, not a path")
    knowledge = load_knowledge(options.knowledge)
    things = load_binding(options.knowledge)
    tokenizer = load_tokenizer(options.tokenizer)
    builder = CorpusBuilder(knowledge, tokenizer, name, seed=options.seed)
    built = [*builder.build().values()]
    binding = build_binding(
        things,
        tokenizer,
        name,
        null=knowledge.wording.null.word,
        seed=options.seed,
        report=builder.report,
    )
    for corpus, split in [*built, *([binding] if binding else [])]:
        write_corpus(options.output / name, corpus, split)
    print(f"{options.output / name}")
    print("\n".join(f"  {line}" for line in builder.report.lines()))


def _folder_name(source: str) -> str:
    # "." and "gpt2/.." have no last part of their own, and would name the output folder itself.
    path = Path(source).expanduser()
    return path.resolve().name if path.is_dir() else path.name


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except TinyAblationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
