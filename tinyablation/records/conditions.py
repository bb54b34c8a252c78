"""The named conditions: the one table that the rest of the project reads them from.

A line of TABLE adds a condition: claims are then judged on it, the page has a column for it, and a
corpus folder may hold <name>.jsonl. Its examples are built by builder.py. A user's condition, read
from a file, needs no line (see own_conditions.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """A kind of prompt on which claims are judged.

    letter: its column on the page. asked: whether every claim that is made of conditions is judged
    on it. in_prompt: why its prompts contain their answers, "" if they do not. If they do, both
    answers must occur exactly once, and not at the end, where the prompt would give one away.
    """

    name: str
    letter: str
    asked: bool = True
    in_prompt: str = ""


BINDING = "binding"

# In the order of the study, which cells, columns and matrices follow everywhere.
TABLE = (
    Condition("facts", "F"),
    Condition("negation", "N"),
    Condition("counterfactual", "C"),
    Condition("logic", "L"),
    Condition(
        BINDING,
        "B",
        asked=False,  # only B.1, which names it, is judged on it
        in_prompt="which of two things introduced has a property is read from the prompt itself",
    ),
)

NAMES = tuple(one.name for one in TABLE)
CONDITIONS = tuple(one.name for one in TABLE if one.asked)
LETTERS: Mapping[str, str] = {one.name: one.letter for one in TABLE}
IN_CONTEXT: Mapping[str, str] = {one.name: one.in_prompt for one in TABLE if one.in_prompt}
ALL_CONDITIONS = "all"  # the condition recorded for a claim that spans conditions

# A condition's name is a part of cell ids, between hyphens, and of run names.
OWN_NAME = re.compile(r"[a-z][a-z0-9_]*")
