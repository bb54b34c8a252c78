"""Records of how far a verdict can be trusted: robustness, counterexamples, checks, multiplicity.

Plain data only: analysis/multiverse.py, analysis/counterexamples.py, engine/hook_backends.py and
sessions/false_discovery.py fill it in; the report shows it.
"""

from typing import Annotated

from pydantic import Field

from tinyablation.records.plain import Count, Number, Plain

Probability = Annotated[Number, Field(ge=0, le=1)]


class Multiverse(Plain):
    """The claim judged by every defensible analysis, and how many of them reach its verdict.

    by_choice: factor ("method") -> option ("mean") -> [how many agreed, how many were made].
    not_made: analysis or option -> why it cannot be made for this claim.
    """

    n: Count
    agreed: Count
    least_share: Probability
    verdicts: dict[str, Count]
    by_choice: dict[str, dict[str, tuple[Count, Count]]]
    not_made: dict[str, str] = Field(default={})

    @property
    def share(self) -> float | None:
        """The share of analyses that agree; None if none could be made."""
        return self.agreed / self.n if self.n else None

    @property
    def fragile(self) -> bool:
        """Whether too few analyses agree."""
        return self.share is not None and self.share < self.least_share


class Counterexample(Plain):
    """A prompt on which a supported claim fails.

    choices: the grammar's choices that make up the prompt, by name ("prefix", "frame", "subject");
    clean_ld and delta in logits. shrunk: no simpler choice of the grammar fails too.
    """

    prompt: str
    target: str
    foil: str
    choices: dict[str, str]
    clean_ld: Number
    delta: Number
    shrunk: bool = True


class Boundary(Plain):
    """Where a supported claim fails, as found by searching the condition's prompt grammar.

    grammar: number of prompts in the grammar; searched: how many of them were measured; failed: on
    how many of those the claim fails; rule: when it counts as failing on one prompt. parts: choice
    ("frame") -> option -> [how many failed, how many were measured].
    """

    rule: str
    grammar: Count
    searched: Count
    failed: Count
    found: list[Counterexample]
    parts: dict[str, dict[str, tuple[Count, Count]]] = Field(default={})


class BackendCheck(Plain):
    """The change that a claim rests on, measured on a sample without this project's engine.

    backend: "TransformerBridge hooks" or "Hugging Face hooks". largest: the largest disagreement
    between engine and backend on a change of the logit difference, in logits; tolerance: the
    largest allowed, in logits; where: the worst example and intervention, for a reader. run: the
    run directory that was checked.
    """

    backend: str
    run: str
    n_examples: Count
    n_interventions: Count
    largest: Number
    tolerance: Number
    where: str

    @property
    def agrees(self) -> bool:
        return self.largest <= self.tolerance


class Multiplicity(Plain):
    """False discovery rate over all tests of a session, valid under any dependence.

    Closed Benjamini-Yekutieli, at level alpha, over the n tests that have a p. A discovery is a
    supported cell whose p_adjusted is at most alpha. lost: supported cells that are no discovery.
    """

    alpha: Probability
    n: Count
    supported: Count
    discoveries: Count
    lost: Count
    largest_p: Probability | None = None  # among discoveries


class NoiseRow(Plain):
    """How far arithmetic alone moved an effect on one device in one dtype, over a session's runs.

    The largest differences seen, in logits: repeat, the same batch again; shape, other batches of
    the same prompts; reference, against the trusted device and dtype (None on that device itself).
    """

    device: str
    dtype: str
    runs: Count
    repeat: Number
    shape: Number
    reference: Number | None = None


class Unmeasured(Plain):
    """How many of the heads that a screening skipped have an effect: in a sample, and at most.

    n: heads not measured; `found` of the `sampled` heads that were drawn and measured have the
    effect, so at most `most` of the n have it (exact, one-sided).
    """

    n: Count
    sampled: Count
    found: Count
    most: Count

    @property
    def share(self) -> float:
        """`most` as a share of the heads not measured; 0 if all were measured."""
        return self.most / self.n if self.n else 0.0


class Screened(Plain):
    """A screened sweep: how many heads were measured, and what the others may hide.

    asked: the value of --screen. measured: heads measured, of n_heads; by_layer of them in layers
    measured whole, by_score for their score, by_chance drawn from the rest. An effect counts if it
    exceeds the floor, in logits, on the confirmation split, by raising or by lowering LD.
    agreement: Spearman's correlation of score and exact effect over those drawn; None if fewer than
    three.
    """

    asked: str
    condition: str
    n_heads: Count
    measured: Count
    by_layer: Count
    by_score: Count
    by_chance: Count
    confidence: Probability
    floor: Number
    raising: Unmeasured
    lowering: Unmeasured
    agreement: Number | None = None
