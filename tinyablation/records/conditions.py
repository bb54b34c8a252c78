"""The named conditions: one table, from which the rest of the project takes all it knows of them.

A condition is added by a line of TABLE. Claims are then asked about it, the page has a column for
it, and a folder of corpora may hold <name>.jsonl; what builds its examples is for builder.py.
A condition of one's own, from a file, needs no line (see own_conditions.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """letter: its column on the page. asked: whether every claim about a condition is about it.

    in_prompt: why its answers stand in its prompts, "" where they do not. Where they do, both must
    stand exactly once, and never at the end, where a prompt would give its answer away.
    """

    name: str
    letter: str
    asked: bool = True
    in_prompt: str = ""


BINDING = "binding"

# In the order of the study, which is that of cells, columns and matrices everywhere.
TABLE = (
    Condition("facts", "F"),
    Condition("negation", "N"),
    Condition("counterfactual", "C"),
    Condition("logic", "L"),
    Condition(
        BINDING,
        "B",
        asked=False,  # claims about the others are not about it: B.1 and B.2 ask for it by name
        in_prompt="which of two things introduced has a property is read from the prompt itself",
    ),
)

NAMES = tuple(one.name for one in TABLE)
CONDITIONS = tuple(one.name for one in TABLE if one.asked)
LETTERS: Mapping[str, str] = {one.name: one.letter for one in TABLE}
IN_CONTEXT: Mapping[str, str] = {one.name: one.in_prompt for one in TABLE if one.in_prompt}
ALL_CONDITIONS = "all"  # the condition of a claim that spans those it is asked about

# A word in a cell's id, between hyphens, and in the names of runs.
OWN_NAME = re.compile(r"[a-z][a-z0-9_]*")
