"""One job as a process of its own: a message on standard input, a receipt in a file.

    python -m tinyablation.cluster.one_job FUNCTION RECEIPT <MESSAGE

FUNCTION is module:name, of a function from text to text. A line end after the message is a shell's.
"""

import importlib
import sys
from pathlib import Path

from tinyablation.files.manifests import write_atomic


def main(name: str, receipt: str) -> None:
    """Apply the function to the message, and write what it returns, as a whole or not at all."""
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    text = function(sys.stdin.read().removesuffix("\n"))
    write_atomic(Path(receipt), lambda stream: stream.write(text.encode()))


if __name__ == "__main__":
    main(*sys.argv[1:])
