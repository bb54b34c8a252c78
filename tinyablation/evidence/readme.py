"""README.txt of a bundle: what it is, its test cases, and how to check them."""

from tinyablation.characters import printable
from tinyablation.evidence.crate import CRATE
from tinyablation.records.records import Record, RecordFile
from tinyablation.spelling import counted
from tinyablation.verdicts.floors import figure

_README = """\
Evidence of {n} of the Tiny Ablation Lab.

{cells}

To check it, with a checkout of the project and this file as it was sent (neither weights nor a GPU
are needed, and nothing in it is run):

    python -m tinyablation verdict FILE

It checks size and sha256 of every file against manifest.json, judges each test case again
from the tables in runs/ with the installed version's own claim function, and says what differs:
in the records, in their page, in what is said of models and runs. What it could not verify it
lists. The archive is as good as its own sha256: compare that with what its author published.

records.json, claims.html   what was recorded, and its page
runs/                       the measurements it rests on, by address: config, tables, provenance
corpora/                    the prompts that were measured, with their splits
models.json                 what the models' files were: sha256 of weights, config and tokenizer
{crate}sources/                    the claims' functions, and what was registered beforehand
"""

_CRATE_LINE = f"{CRATE}      the same for programs: RO-Crate 1.1, Process Run Crate 0.5\n"


def readme(file: RecordFile, *, crate: bool = True) -> bytes:
    cells = "\n".join(
        f"    {printable(line(record))}\n        {record.test}" for record in file.records
    )
    said = _CRATE_LINE if crate else ""
    n = counted(len(file.records), "test case")
    return _README.format(n=n, cells=cells, crate=said).encode()


def line(record: Record) -> str:
    """One test case as text: claim, model, condition, verdict, and its figures if there are any."""
    name = " ".join(filter(None, (record.claim, record.model, record.condition)))
    effect = ""
    if record.effect is not None and record.low is not None and record.high is not None:
        effect = (
            f", {figure(record.effect)} [{figure(record.low)}, {figure(record.high)}] {record.unit}"
        )
    return f"{name}: {record.verdict}{effect}"
