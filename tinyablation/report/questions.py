"""The questions that claims belong to: a title for each family, and the order of the page.

What a study is about comes first and validity, which says only that a model can do its task, last.
A family that is not listed, of a pack of one's own, has no title: its letters stand for it.
"""

from collections.abc import Iterable

QUESTIONS = {
    "H1": "Does a head of layer 0 suppress the right answer?",
    "H5": "Do heads of layer 0 suppress together, and does one carry the effect?",
    "H6": "By which way does the effect travel? (activation and path patching)",
    "OV": "What does the named head write? (OV circuit)",
    "S": "Does steering along what the head writes move the answers?",
    "G": "What do three heads change in the output and in the residual stream?",
    "K": "Are probabilities better calibrated without the heads?",
    "D": "When in training does the suppression emerge?",
    "B": "Do middle heads bind, and late heads sharpen?",
    "IND": "Are there induction heads?",
    "PT": "Are there previous-token heads?",
    "IOI": "Is there a circuit of indirect objects?",
    "GT": "Is there a circuit of years that come after another?",
    "CS": "Do heads suppress what they copy?",
    "REP": "Do later parts repair what an ablation takes away?",
    "SINK": "Are there attention sinks?",
    "ROME": "Where are facts restored after noise? (causal tracing)",
    "SUCC": "Are there successor heads?",
    "DUAL": "Are there two routes of copying, by token and by concept?",
    "FORM": "When in training does induction form?",
    "LAYER": "What does the removal of a layer do?",
    "V": "Does the model know the answers, and not by a shortcut? (validity)",
}
VALIDITY = "V"  # the family of claims on whether a condition is valid


def in_order(families: Iterable[str]) -> list[str]:
    """Families as the page shows them: listed ones, those of other packs as given, validity."""
    given = list(dict.fromkeys(families))
    places = {name: rank for rank, name in enumerate(QUESTIONS)}
    last = len(places)
    return sorted(given, key=lambda name: (name == VALIDITY, places.get(name, last)))
