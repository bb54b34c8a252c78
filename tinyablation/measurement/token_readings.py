"""By prompt, the most probable next tokens, clean and ablated, and what ablated heads attend to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyablation.engine.document import Computed
from tinyablation.files.hashes import digest
from tinyablation.heads import Head
from tinyablation.interventions.batteries import UNHOOKED, Sample
from tinyablation.interventions.interventions import AblateHeads

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

    from tinyablation.engine.prompt_checks import Ids
    from tinyablation.measurement.interface import Measures

TOP_K = 5
ATTENDED = 3  # tokens of each head
HEADS = 3  # of an ablation, whose attention is read
DIGITS = 6  # of a probability, after the point
VERSION = 2  # part of the address: incremented whenever a token or a probability could change
# What z becomes by these does not depend on other prompts, which a single prompt has none of.
PROMPT_FREE = ("zero", "zero_folded")


@dataclass(frozen=True)
class NextTokens:
    """The TOP_K most probable next tokens of some prompts, each with one ablation of its own.

    cases: (row of the condition's corpus, what is ablated there), by a method of PROMPT_FREE. They
    are measured as verify.json is: one prompt alone, by plain hooks (hook_changes.py).

    The document has "cases", in order: {"row", "ablation", "clean", "ablated", "attended"}. clean
    and ablated are lists of {"token", "probability"}, the most probable first; attended is one of
    {"head", "tokens"}: the first HEADS ablated heads, and the tokens to which each attends most
    from the last position of the unhooked prompt. It is empty for a model whose attention modules
    do not return probabilities.
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
        from tinyablation.engine.attention_patterns import attention_at
        from tinyablation.engine.hook_backends import Case
        from tinyablation.engine.hook_changes import Changes
        from tinyablation.engine.prompt_checks import EngineError

        model = bench.model
        corpus, _ = bench.corpus(condition)
        examples = [corpus.examples[row] for row, _ in self.cases]
        changes = Changes(bench.plain_hooks, bos_id=model.bos_id, seed=bench.seed)

        def largest(probabilities: np.ndarray, ids: Sequence[int], n: int) -> list[dict[str, Any]]:
            """The n most probable of these tokens; of equally probable ones the first."""
            order = (-probabilities).argsort(kind="stable")[:n].tolist()
            texts = texts_of(model.tokenizer, [ids[place] for place in order])
            return [
                {"token": text, "probability": round(float(probabilities[place]), DIGITS)}
                for place, text in zip(order, texts, strict=True)
            ]

        def next_tokens(logits: Float64[Tensor, " vocab"]) -> list[dict[str, Any]]:
            return largest(logits.softmax(-1).cpu().numpy(), range(len(logits)), TOP_K)

        def attended(ids: Ids, heads: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
            last = len(ids) - 1
            keys = np.array([(last, key) for key in range(len(ids))])
            try:
                (weights,) = attention_at(bench.engine, [ids], [keys])
            except EngineError:
                return []
            return [
                {"head": Head(*head).name, "tokens": largest(weights[:, *head], ids, ATTENDED)}
                for head in heads[:HEADS]
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
                    "clean": next_tokens(changes.logits(case)),
                    "ablated": next_tokens(changes.logits(case, ablation)),
                    "attended": attended(span.ids, ablation.heads),
                }
            )
        document = {"model": bench.entry.id, "condition": condition, "cases": found}
        return Computed(document)
