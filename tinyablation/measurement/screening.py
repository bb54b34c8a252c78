"""Screening: which heads of a large model are measured exactly, and what the others may hide.

Attribution patching (attribution.py) scores every head on the discovery split, at the cost of a few
forward passes. The heads to measure exactly are chosen by these scores and at random:

    whole layers   every head of layer 0 and of the layers of heads that claims name
    top            of the rest, the K heads with the highest score (suppressors have Delta > 0), the
                   K with the largest magnitude, and the largest in magnitude of each layer
    sample         M of the remaining heads, drawn by the seed

The confirmation split plays no part in it, so verdicts on it need no correction for the choice
(screen and clean: Wasserman and Roeder 2009, Annals of Statistics 37). The sample is drawn from the
heads that the scores skipped, so it bounds how many of those have an effect. That bound is exact
and needs no assumption about the quality of the scores.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyablation.corpora.examples import DISCOVERY
from tinyablation.errors import TinyAblationError
from tinyablation.files.hashes import digest
from tinyablation.heads import Head
from tinyablation.interventions.batteries import (
    BASELINE,
    ONE_WORDING,
    Sample,
    Shard,
    Side,
    cut,
    single_heads,
)
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.statistics.intervals import generator

if TYPE_CHECKING:
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.engine.document import Computed
    from tinyablation.measurement.interface import Measures

CONFIDENCE = 0.95  # of every bound on missed heads, as for our intervals
METHOD = "zero"  # the ablation that scores approximate to first order, and that is measured
SCORES_VERSION = 1  # part of the address: incremented whenever a score could change
_AMOUNT = re.compile(r"([0-9]{1,6})|([0-9]{1,3}(?:\.[0-9]+)?)%")


class ScreeningError(TinyAblationError):
    """A sweep cannot be screened as requested; the message says why."""


class Amount(NamedTuple):
    """A number of heads, or a share of the model's heads, as text ("64", "5%")."""

    text: str

    def of(self, n_heads: int) -> int:
        """The number of a model's heads, rounded up and at most n_heads."""
        number, percent = self.parsed()
        wanted = float(number) if number else float(percent) / 100 * n_heads
        return min(n_heads, int(np.ceil(wanted)))

    def parsed(self) -> tuple[str, str]:
        match = _AMOUNT.fullmatch(self.text)
        number, percent = ("", "") if match is None else (match[1] or "", match[2] or "")
        if not float(number or percent or 0) or float(percent or 0) > 100:
            raise ScreeningError(
                f"{self.text!r} is not a number of heads; write a number (64) or a share of all "
                "heads (5%), above zero"
            )
        return number, percent


@dataclass(frozen=True)
class Screening:
    """How sweeps are screened: the K and M of the module docstring, and which layers stay whole.

    layers: by model, the layers of heads that claims name; layer 0 is always added.
    """

    top: Amount
    sample: Amount
    layers: Mapping[str, frozenset[int]]

    @property
    def asked(self) -> str:
        """The text as on the command line: "64:64"."""
        return f"{self.top.text}:{self.sample.text}"


def parse_screening(text: str, layers: Mapping[str, frozenset[int]] | None = None) -> Screening:
    """The screening for TOP:SAMPLE, such as "64:64" or "5%:5%"; ScreeningError if malformed."""
    top, colon, sample = text.partition(":")
    if not colon:
        raise ScreeningError(
            f"{text!r}: write TOP:SAMPLE, how many heads are measured by score and how many of the "
            "rest by chance, such as 64:64 or 5%:5%"
        )
    made = Screening(Amount(top.strip()), Amount(sample.strip()), dict(layers or {}))
    for amount in (made.top, made.sample):
        amount.parsed()
    return made


@dataclass(frozen=True)
class Plan:
    """Which heads of a model are measured under one condition, and why.

    whole: layers; top and sample: heads of other layers, sorted. scores [layers, heads], in logits.
    """

    asked: str
    whole: tuple[int, ...]
    top: tuple[Head, ...]
    sample: tuple[Head, ...]
    scores: tuple[tuple[float, ...], ...]
    reading: str = ""  # the directory that holds it

    @property
    def n_layers(self) -> int:
        return len(self.scores)

    @cached_property
    def every(self) -> tuple[Head, ...]:
        """All heads of the model, layer by layer."""
        return single_heads(self.n_layers, len(self.scores[0]))

    @cached_property
    def measured(self) -> tuple[Head, ...]:
        """The heads that are measured, layer by layer."""
        own = {*self.top, *self.sample}
        return tuple(head for head in self.every if head[0] in self.whole or head in own)

    @cached_property
    def rest(self) -> tuple[Head, ...]:
        """The heads that the sample was drawn from, including itself."""
        top = set(self.top)
        return tuple(head for head in self.every if head[0] not in self.whole and head not in top)

    def document(self) -> dict[str, Any]:
        """The document that is stored, and that its name is a hash of."""
        return {
            "asked": self.asked,
            "method": METHOD,
            "whole_layers": list(self.whole),
            "top": [list(head) for head in self.top],
            "sample": [list(head) for head in self.sample],
        }

    @property
    def name(self) -> str:
        """Part of addresses: another plan is another measurement."""
        return digest(self.document())[:8]


def make_plan(
    scores: NDArray[np.float64], screening: Screening, model: str, *, seed: int, purpose: str
) -> Plan:
    """The plan based on scores [layers, heads]; the sample is drawn by (seed, purpose).

    Ties are broken by the order of heads.
    """
    n_layers, n_heads = scores.shape
    every = single_heads(n_layers, n_heads)
    whole = {0, *screening.layers.get(model, ())} & set(range(n_layers))
    candidates = [head for head in every if head[0] not in whole]
    by_score = sorted(candidates, key=lambda head: (-scores[head], head))
    by_size = sorted(candidates, key=lambda head: (-abs(scores[head]), head))
    k = screening.top.of(len(every))
    firsts = {head[0]: head for head in reversed(by_size)}
    top = {*by_score[:k], *by_size[:k], *firsts.values()}
    rest = [head for head in candidates if head not in top]
    m = min(len(rest), screening.sample.of(len(every)))
    drawn: list[int] = []
    if m:
        drawn = generator(seed, purpose).choice(len(rest), m, replace=False).tolist()
    return Plan(
        screening.asked,
        tuple(sorted(whole)),
        tuple(sorted(top)),
        tuple(sorted(rest[index] for index in drawn)),
        tuple(tuple(float(score) for score in row) for row in scores),
    )


@dataclass(frozen=True)
class ScreenedHeads:
    """The battery that zeroes each head of a plan alone."""

    heads: tuple[Head, ...]
    plan: str
    side: Side = "clean"
    donor: Side | Literal[""] = ""
    sample: Sample = ONE_WORDING

    @property
    def name(self) -> str:
        return f"screened-{self.plan}"

    def shards(self, n_layers: int, n_heads: int) -> list[Shard]:
        known = single_heads(n_layers, n_heads)
        if strange := set(self.heads) - set(known):
            raise ScreeningError(f"the plan is for another model: there is no head {min(strange)}")
        return [Shard(BASELINE, ()), *cut("heads", [AblateHeads((head,)) for head in self.heads])]


_ON = Sample(split=DISCOVERY)


@dataclass(frozen=True)
class Scores:
    """The reading of every head's mean score over the discovery split."""

    sample: Sample = _ON

    def name(self, bench: "Measures") -> str:
        return f"scores-{METHOD}-v{SCORES_VERSION}"

    def compute(self, bench: "Measures", condition: str) -> "Computed":
        return _scores(bench, condition)


@dataclass(frozen=True)
class KeptPlan:
    """The reading that holds a plan; scores: the directory of the scores it was made from."""

    plan: Plan
    scores: str
    sample: Sample = _ON

    def name(self, bench: "Measures") -> str:
        return f"plan-{self.plan.name}"

    def compute(self, bench: "Measures", condition: str) -> "Computed":
        from tinyablation.engine.document import Computed

        return Computed(self.plan.document() | {"scores": self.scores})


def obtain_plan(bench: "Measures", condition: str, screening: Screening) -> Plan:
    """The plan of a condition; it and its scores are readings, computed once.

    Raises ScreeningError if a method other than zero ablation is to be measured, or if both answers
    of every example begin with the same token, so that there are no scores.
    """
    if bench.method != METHOD:
        raise ScreeningError(
            f"a sweep by {bench.method} is not screened: scores are of {METHOD} ablation"
        )
    scored = bench.reading(condition, Scores())
    purpose = f"screening {bench.entry.id} {condition}"
    scores = np.array(scored.document()["scores"], dtype=np.float64)
    made = make_plan(scores, screening, bench.entry.id, seed=bench.seed, purpose=purpose)
    reading = bench.reading(condition, KeptPlan(made, scored.name))
    return replace(made, reading=reading.name)


def _scores(bench: "Measures", condition: str) -> "Computed":
    """The mean score of every head over the discovery split."""
    from tinyablation.engine.attribution import head_scores
    from tinyablation.engine.document import Computed

    prompts = _prompts(bench, condition)
    scores = head_scores(bench.engine, prompts).mean(0)
    return Computed(
        {
            "method": METHOD,
            "split": DISCOVERY,
            "n_examples": len(prompts),
            "unit": "logits, ablated - clean, to first order",
            "scores": scores.tolist(),
        }
    )


def _prompts(bench: "Measures", condition: str) -> "list[Prompt]":
    """The prompts of the discovery split, with only the first token of each answer."""
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.interventions.batteries import battery
    from tinyablation.measurement.plan import measurement_of

    chosen = bench.examples(condition, DISCOVERY)
    measured = measurement_of(bench, battery(METHOD), condition, chosen)
    prompts: Any = measured.prompts
    if not measured.has_spans:
        return list(prompts)
    rows = measured.comparable_rows()
    if not rows:
        raise ScreeningError(
            f"{bench.entry.id}, {condition}: both answers of every example begin with the same "
            "token, so no head has a score; measure every head instead"
        )
    spans = [prompts[row] for row in rows]
    return [Prompt(span.ids, span.target[0], span.foil[0]) for span in spans]
