"""The command `partial-patch`: three heads zeroed, one restored."""

import argparse
from typing import Any

from tinyablation.cli.data import add_data_options, data_of
from tinyablation.cli.measure import (
    CommandError,
    add_bench_options,
    add_heads_option,
    add_output_options,
    put,
    refuse_overwriting,
)
from tinyablation.corpora.examples import CONFIRMATION
from tinyablation.heads import Head, head_name
from tinyablation.interventions.batteries import UNHOOKED


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    partial = commands.add_parser(
        "partial-patch",
        help="zero a set of heads, restore one at a time",
        description="Zeroes three heads of one layer and restores one: how much of the effect "
        "comes back, on the confirmation split, or on the split of --config. Restoring one of "
        "three is zeroing the other two, and measured as that. With one head to restore, "
        "`patched` is that head's; with several it has one entry a head.",
    )
    add_data_options(partial)
    add_bench_options(partial, named=False)
    add_heads_option(partial, "--heads", "three of one layer, such as L0H2 L0H4 L0H5")
    add_heads_option(partial, "--restore", "default: each of the three in turn")
    study = partial.add_argument_group("the same as in the study")
    study.add_argument("--layer", type=int, metavar="N", help="of --zero-heads and --patch-head")
    study.add_argument("--zero-heads", type=int, nargs="+", metavar="N", help="--heads of --layer")
    study.add_argument("--patch-head", type=int, metavar="N", help="--restore of --layer")
    add_output_options(partial)
    partial.set_defaults(run=_partial_patch)


def _heads(options: argparse.Namespace) -> tuple[tuple[Head, ...], tuple[Head, ...]]:
    """The three heads, and those that are restored."""
    given, restored = list(options.heads or ()), list(options.restore or ())
    if options.zero_heads is not None or options.patch_head is not None:
        if options.layer is None:
            raise CommandError("--zero-heads and --patch-head: give --layer, too")
        given += [Head(options.layer, head) for head in options.zero_heads or ()]
        one = options.patch_head
        restored += [] if one is None else [Head(options.layer, one)]
    trio = tuple(sorted(set(given)))
    if len(trio) != 3 or len({head.layer for head in trio}) != 1:
        said = " ".join(map(head_name, given)) or "none given"
        raise CommandError(f"--heads {said}: give three heads of one layer")
    for head in restored:
        if head not in trio:
            raise CommandError(f"--restore {head_name(head)}: it is not among --heads")
    return trio, tuple(sorted(set(restored))) or trio


def _partial_patch(options: argparse.Namespace) -> None:
    """Baseline, zero and patched LD, with each restored head's recovery."""
    from tinyablation.analysis.coalitions import Coalitions
    from tinyablation.analysis.findings import Findings
    from tinyablation.interventions.head_sets import Subsets
    from tinyablation.statistics.ratios import RatioUndefined

    refuse_overwriting(options)
    trio, restored = _heads(options)
    if options.samples is not None and options.config is None:
        raise CommandError("--samples: is of a --config; a split of this project is measured whole")
    bench, condition, split = data_of(options)
    findings = Findings(bench)
    if split is None:
        split, found = CONFIRMATION, findings.subsets(condition, trio)
    else:
        run = bench.run(condition, Subsets(trio, bench.method, sample=UNHOOKED))
        found = Coalitions(*findings.measured(condition, run), method=bench.method)
    clean = float(found.baseline(split)["logit_diff"].mean())
    patched: dict[str, Any] = {}
    for head in restored:
        rest = [other for other in trio if other != head]
        name = head_name(head)
        patched[name] = {"logit_diff": clean + found.mean(rest, split)}
        try:
            share = found.recovery(trio, head, split=split)
            patched[name]["recovery"] = share.estimate
            patched[name]["recovery_ci95"] = [share.low, share.high]
        except RatioUndefined as refusal:
            patched[name]["recovery"] = None
            patched[name]["note"] = str(refusal)
    put(
        {
            "model": found.model,
            "condition": found.condition,
            "split": split,
            "n_examples": len(found.baseline(split)),
            "heads": [head_name(head) for head in trio],
            "baseline": {"logit_diff": clean},
            "zero": {"logit_diff": clean + found.mean(trio, split)},
            "patched": next(iter(patched.values())) if len(patched) == 1 else patched,
            "runs": list(found.runs),
        },
        options,
    )
