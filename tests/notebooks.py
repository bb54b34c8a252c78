"""Notebooks, executed in one namespace without Jupyter, as text. Not tests.

Run: python -m tests.notebooks docs/notebooks/study.ipynb      writes what its cells now put out
"""

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def execute(cells: list[str]) -> list[str]:
    """What each cell prints, and the text of its last expression, as Jupyter shows it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for number, source in enumerate(cells, start=1):
        tree = ast.parse(source, f"cell {number}")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(tree, f"cell {number}", "exec"), namespace)
            if last is not None:
                made = eval(
                    compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace
                )
                print("" if made is None else repr(made))
        found.append(said.getvalue().rstrip("\n"))
    return found


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def kept(cell: dict[str, Any]) -> str:
    """The text that a notebook keeps as the output of a cell."""
    return "".join(line for out in cell["outputs"] for line in out["data"]["text/plain"])


def write(path: Path) -> None:
    """Execute a notebook and put the outputs of its cells into it."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in whole["cells"] if cell["cell_type"] == "code"]
    for number, (cell, text) in enumerate(
        zip(cells, execute([source(cell) for cell in cells]), strict=True), start=1
    ):
        data = {"text/plain": text.splitlines(keepends=True)}
        out = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        cell["outputs"] = [out | {"data": data}] if text else []
        cell["execution_count"] = number
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
