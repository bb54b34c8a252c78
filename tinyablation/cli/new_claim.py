"""`new-claim`: the skeleton of a claim, in a test file of any repository.

tinyablation new-claim LAB.1
"""

import argparse
from pathlib import Path

from tinyablation.errors import TinyAblationError
from tinyablation.verdicts.expectations import CLAIM

SKELETON = '''"""Claims of {family}. Run: pytest {path}"""

import pytest


@pytest.mark.claim("{claim}", models="{model}", conditions="{condition}")
def test_{name}(sweep, judge):
    """Head {head} suppresses the right answer.

    Estimator: mean change of the logit difference when the head is zero-ablated, over all examples.
    Threshold: its 95 % interval over clusters lies above 5 % of the clean logit difference.
    Refuted if: the interval lies below that, and not above 0.
    """
    judge(sweep.suppresses("{head}"))
'''


class ClaimNotWritten(TinyAblationError):
    """The skeleton was not written; the message says why, and nothing was changed."""


def add_new_claim_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    """Register `new-claim`."""
    new = commands.add_parser(
        "new-claim",
        help="write the skeleton of a claim as a test file",
        description="Writes a test file with one claim, about head L0H7 of the model. pytest "
        "judges it as it is; change what it says. A file that is there is never changed.",
    )
    new.add_argument("claim", metavar="ID", help="letters of your own, dot, number: LAB.1")
    new.add_argument("--to", type=Path, metavar="FILE", help="default: tests/test_<ID>.py")
    new.add_argument(
        "--model", default="tiny-gpt2", help="what --model of pytest takes (default: %(default)s)"
    )
    new.add_argument("--condition", default="facts", help="default: %(default)s")
    new.set_defaults(run=new_claim)


def new_claim(options: argparse.Namespace) -> None:
    """Write the file and say how it is run; ClaimNotWritten if that cannot be."""
    claim: str = options.claim
    if not CLAIM.fullmatch(claim):
        raise ClaimNotWritten(
            f"{claim!r} is not a claim id; give letters of your own, a dot and a number, as LAB.1"
        )
    for option, text in (("--model", options.model), ("--condition", options.condition)):
        if not text or not text.isprintable() or set(text) & set('"\\'):
            raise ClaimNotWritten(f"{option} {text!r}: give a name without quotes or backslashes")
    name = claim.lower().replace(".", "_")
    path: Path = options.to or Path("tests", f"test_{name}.py")
    if path.suffix != ".py" or not path.name.startswith("test_"):
        raise ClaimNotWritten(f"--to {path}: pytest finds tests in files called test_*.py")
    text = SKELETON.format(
        family=claim.split(".")[0],
        path=path.as_posix(),
        claim=claim,
        name=name,
        model=options.model,
        condition=options.condition,
        head="L0H7",
    )
    if path.exists():
        raise ClaimNotWritten(f"{path}: is there already; give another with --to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:  # nor one that has come meanwhile
            file.write(text)
    except OSError as error:
        raise ClaimNotWritten(f"{path}: cannot be written ({error.strerror})") from error
    print(f"{path}\nRun it: pytest {path}")
