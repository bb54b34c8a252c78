"""The options that the plugin adds to pytest, in this module that imports next to nothing.

In a repository of others it is loaded for every session, so its defaults are written out here; a
test compares them with the modules they belong to. Options are added after those of all other
plugins and conftests: of an option that another one has, such as --model, only the long form
--tinyablation-model is added. They are read by `command`, never from `config.option`, where the
same names may be others'.
"""

import argparse
from collections.abc import Callable
from typing import Any

import pytest

AUTO = "auto"
DTYPES = (AUTO, "float32", "bfloat16", "float16")
PROTOCOLS = ("corrected", "published")  # of records.records
PER_RELATION = 2  # of interventions.batteries
GROUP = "tinyablation"
_DEST = "tinyablation_"
GUEST = pytest.StashKey[bool]()  # whether the plugin is a guest (entry.py)


class Command:
    """The command line of a session, as attributes: of our own options, and of pytest's."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:
        given = vars(self._given)
        return given[_DEST + name] if _DEST + name in given else getattr(self._given, name)


def command(config: pytest.Config) -> Command:
    """The options of this session."""
    return Command(config.option)


def spelt(config: pytest.Config, given: list[str]) -> list[str]:
    """Options and their values as this session takes them: --tinyablation-model for --model, where
    --model is another plugin's.
    """
    own = {name for option in config._parser.getgroup(GROUP).options for name in option.names()}
    longer = ((word, f"--{GROUP}-{word[2:]}") for word in given)
    return [long if long in own and word.startswith("--") else word for word, long in longer]


def is_used(config: pytest.Config) -> bool:
    """Whether the command gives one of our options another value than its default."""
    return any(
        vars(config.option).get(_DEST + name) != default for name, default in _defaults().items()
    )


def _defaults() -> dict[str, Any]:
    found = {}
    _table(lambda name, **given: found.update({name[2:].replace("-", "_"): given["default"]}))
    return found


def add_options(parser: pytest.Parser) -> None:
    """Add the options; nothing if that was done before."""
    group = parser.getgroup(GROUP)
    if group.options:
        return

    def add(name: str, **given: Any) -> None:
        dest = _DEST + name[2:].replace("-", "_")
        for each in (name, f"--{GROUP}-{name[2:]}"):
            try:
                group.addoption(each, dest=dest, **given)
                return
            except (ValueError, argparse.ArgumentError):
                continue  # another plugin has an option of this name

    _table(add)


def _from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def _table(add: Callable[..., None]) -> None:
    add(
        "--claim",
        action="append",
        default=[],
        metavar="ID",
        help="run only these claims: an id (H1.1) or a prefix that ends at a dot (H1); give "
        "several with commas or by repeating the option",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="ID_OR_PATH",
        help="run only these models: an id of fixtures/models.toml, a folder, a GGUF file, or a "
        "repository of the hub (owner/name); repeat it for several (default: the embedded models, "
        "and others of the file that -k, -m hub or a node id name)",
    )
    add(
        "--name",
        action="append",
        default=[],
        metavar="TITLE",
        help="name of a --model in ids and on the page; repeat it for several, in the order of "
        "--model (default: the name of its folder, file or repository, or the one in its files)",
    )
    add(
        "--registry",
        default=None,
        metavar="FILE",
        help="a models.toml of further models, with a subjects.toml beside it that names their "
        "heads; they are listed as those of fixtures/models.toml are, and have predictions, but no "
        "baseline; -k selects theirs (default: none)",
    )
    add(
        "--revision",
        default=None,
        metavar="REV",
        help="branch, tag or commit of the hub models given by --model (default: as registered)",
    )
    add(
        "--heads",
        default=None,
        metavar="L0H7,...",
        help="the heads of one layer that claims about this session's one model are about: the "
        "suppressor first, then none, one (a pair) or two (a trio); nothing is registered for them "
        "(default: those of subjects.toml, else chosen on the discovery split)",
    )
    add(
        "--require-models",
        action="store_true",
        default=False,
        help="fail the claims of a model that this machine cannot provide (default: they are "
        "skipped as blocked, and the session exits 1 if the model was named by its id)",
    )
    add(
        "--require-valid",
        action="store_true",
        default=False,
        help="exit 1 if some model could not be judged at all: all its selected test cases, except "
        "those of V (validity itself), are blocked (default: blocked ones are skipped)",
    )
    add(
        "--device",
        default=AUTO,
        metavar="NAME",
        help="auto, cpu, cuda (workers spread over the GPUs), cuda:N or mps (default: auto)",
    )
    add(
        "--dtype",
        choices=DTYPES,
        default=AUTO,
        help="dtype of the weights (default: auto, each model's own in fixtures/models.toml)",
    )
    add(
        "--condition",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a condition of your own, in addition to the project's: JSON lines with clean, "
        "corrupt, target and foil, and optionally null, cluster, template, fact, cell, family and "
        "split; -k NAME selects its test cases; repeat it for several (default: none)",
    )
    add(
        "--accept-defects",
        action="store_true",
        default=False,
        help="use the files of --condition as they are, and list their defects in every record "
        "(default: a file with defects ends the session with a list of them)",
    )
    add(
        "--reports",
        default=None,
        metavar="DIR",
        help="folder for reports (default: reports/ beside pytest.ini)",
    )
    add(
        "--remeasure",
        action="store_true",
        default=False,
        help="measure again what was changed after it was stored: a run whose files are not those "
        "of its manifest is moved to .set-aside/ beside the runs, and nothing is deleted (default: "
        "such a run is refused, and the file named)",
    )
    add(
        "--seed",
        type=_from(0),
        default=0,
        metavar="N",
        help="seed of every random draw: donors, bootstrap, sign flips (default: 0)",
    )
    add(
        "--protocol",
        choices=PROTOCOLS,
        default="corrected",
        help="corrected, or published: measure as the study did (right padding with the last index "
        "read, zero_folded ablation, baseline = mean over ablated heads, no validity gate); "
        "nothing is registered for that, and its reports go to published/ under DIR "
        "(default: corrected)",
    )
    add(
        "--per-relation",
        type=_from(1),
        default=PER_RELATION,
        metavar="N",
        help="examples of each relation that a sweep measures, where a condition's clusters are "
        "relations; sets, patches and the like measure half or a fourth of them (default: "
        "%(default)s)",
    )
    add(
        "--screen",
        default=None,
        metavar="TOP:SAMPLE",
        help="measure only some heads: those of layer 0 and of layers with heads that claims name, "
        "TOP of the others by attribution patching, and SAMPLE of the remaining ones at random, "
        "each a number (64) or a share of all heads (5%%); claims that this leaves open are "
        "inconclusive, with a bound (default: off, every head)",
    )
    add(
        "--executor",
        default="local",
        metavar="URL",
        help="where to measure: local (this process), dask://HOST:PORT, slurm://PARTITION?OPTIONS "
        "or processes:// (a rehearsal on this machine); with others than local this process "
        "only judges (default: local)",
    )
    add(
        "--baseline",
        default=None,
        metavar="PATH",
        help="an earlier report: a folder of reports, its runs/, records.json, or a claims.html; "
        "the page then shows what changed since (default: none)",
    )
    add(
        "--robustness",
        action="store_true",
        default=False,
        help="also judge each test case by other analyses (its multiverse), and search the prompt "
        "grammar for prompts on which a supported claim fails (its boundary); takes minutes more; "
        "kept under <reports>/robustness/ and shown by later sessions (default: off)",
    )
