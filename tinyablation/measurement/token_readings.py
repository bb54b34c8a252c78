"""The next tokens that a model holds most probable, unhooked and with heads ablated, by prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyablation.engine.document import Computed
from tinyablation.files.hashes import digest
from tinyablation.interventions.batteries import UNHOOKED, Sample
from tinyablation.interventions.interventions import AblateHeads

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

    from tinyablation.measurement.interface import Measures

TOP_K = 5
DIGITS = 6  # of a probability, after the point
VERSION = 1  # part of the address: incremented whenever a token or a probability could change
# What z becomes by these does not depend on other prompts, which a single prompt has none of.
PROMPT_FREE = ("zero", "zero_folded")


@dataclass(frozen=True)
class NextTokens:
    """The TOP_K most probable next tokens of some prompts, each with one ablation of its own.

    cases: (row of the condition's corpus, what is ablated there), by a method of PROMPT_FREE. They
    are measured as verify.json is: one prompt alone, by plain hooks (hook_changes.py).

    The document has "cases", in order: {"row", "ablation", "clean", "ablated"}, the last two lists
    of {"token", "probability"}, the most probable first.
    """

    cases: tuple[tuple[int, AblateHeads], ...]
    sample: Sample = UNHOOKED

    def __post_init__(self) -> None:
        other = sorted({each.method for _, each in self.cases} - set(PROMPT_FREE))
        if other:
            raise ValueError(
                f"next tokens of single prompts: {other[0]!r} replaces z by that of other prompts; "
                f"use {' or '.join(PROMPT_FREE)}"
            )

    def name(self, bench: Measures) -> str:
        asked = digest([(row, ablation.label) for row, ablation in self.cases])
        return f"next-tokens-{TOP_K}-{asked[:8]}-v{VERSION}"

    def compute(self, bench: Measures, condition: str) -> Computed:
        from tinyablation.corpora.answers import encode_spans
        from tinyablation.corpora.lexicons import texts_of
        from tinyablation.engine.hook_backends import Case
        from tinyablation.engine.hook_changes import Changes

        model = bench.model
        corpus, _ = bench.corpus(condition)
        examples = [corpus.examples[row] for row, _ in self.cases]
        changes = Changes(bench.plain_hooks, bos_id=model.bos_id, seed=bench.seed)

        def most_probable(logits: Float64[Tensor, " vocab"]) -> list[dict[str, Any]]:
            """Of equally probable tokens the one of the lower id first."""
            probabilities = logits.softmax(-1).cpu().numpy()
            order = (-probabilities).argsort(kind="stable")[:TOP_K].tolist()
            return [
                {"token": text, "probability": round(float(probabilities[id]), DIGITS)}
                for id, text in zip(order, texts_of(model.tokenizer, order), strict=True)
            ]

        found = []
        for (row, ablation), span in zip(
            self.cases, encode_spans(model.tokenizer, examples, model.bos_id), strict=True
        ):
            case = Case(span.ids, span.target[0], span.foil[0], {"self": span.ids})
            found.append(
                {
                    "row": row,
                    "ablation": ablation.label,
                    "clean": most_probable(changes.logits(case)),
                    "ablated": most_probable(changes.logits(case, ablation)),
                }
            )
        document = {"model": bench.entry.id, "condition": condition, "cases": found}
        return Computed(document)
