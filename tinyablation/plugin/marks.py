"""The marks that tests may carry, and what may be said with them."""

# What a claim may need of a model besides weights.
NEEDS = ("named heads", "reference", "checkpoints")
# When a claim fails on a prompt; its heads are the record's subject, one head or a set.
KINDS = {
    "suppression": "ablating its heads lowers LD",
    "lead": "ablating its heads raises LD less than ablating the best other head does",
    "knowledge": "the model prefers the wrong answer",
}
CLAIM = "claim"
COUNTEREXAMPLE = "counterexample"
HUB = "hub"  # of every test case of a model of the hub
_KINDS = "; ".join(f'"{kind}": {fails}' for kind, fails in KINDS.items())
MARKERS = (
    f"{CLAIM}(id, models=..., conditions=...): the test judges this claim; of these models and "
    "under these conditions only, where they are given",
    f"needs(what): what a claim needs of a model besides weights: {', '.join(NEEDS)}",
    f"{COUNTEREXAMPLE}(kind): when the claim fails on a prompt, {_KINDS}",
    f"{HUB}: a test case of a model of the hub; it is collected when the model is named",
)
