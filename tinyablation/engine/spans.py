"""Answers of several tokens: the probability of a whole target and a whole foil, token by token.

Teacher forcing: p(answer | prompt) = prod_i p(answer_i | prompt + answer_<i). The models are
causal, so the prompt with the first i tokens of an answer is a prompt of its own: the engine
measures each, and the probability of the next token is read from its table. An intervention
therefore acts at all positions of prompt and answer alike.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyablation.corpora.answers import Span
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine.donors import draw_donors
from tinyablation.engine.prompt_checks import EngineError, Ids, check_prompts

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from tinyablation.engine.engine import Engine
    from tinyablation.interventions.interventions import Intervention

# Below this a float64 loses digits and soon becomes 0, so its logarithm would be wrong or -inf; it
# takes a logit 690 below the logsumexp.
LEAST_PROBABILITY = 1e-300


class _Row(NamedTuple):
    """A prompt with its next token, and its donors."""

    ids: Ids
    token: int
    donor: Ids
    pair: Ids
    subject: tuple[int, ...]
    template: tuple[Ids, ...]


def measure_spans(
    engine: "Engine",
    spans: Sequence[Span],
    interventions: Sequence["Intervention"],
    *,
    reference: Sequence[Span] | None = None,
    clusters: Sequence[str] | None = None,
    reference_clusters: Sequence[str] | None = None,
    pairs: Sequence[Span] | None = None,
    subjects: Sequence[tuple[int, ...]] | None = None,
    directions: Mapping[str, "Tensor"] | None = None,
    templates: Sequence[tuple[Ids, ...]] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> "pandas.DataFrame":
    """Measure every intervention on every span: the rows, order and columns of Engine.measure.

    For whole answers (equal to logit_diff, target_probability and kl if both are one token):

    - seq_logprob_diff = log p(target) - log p(foil), in nats;
    - seq_probability = p(target); 0.0 if that underflows in float64;
    - seq_kl_mean = the mean over the target's positions of KL(clean||ablated), the target's earlier
      tokens given, in nats.

    All other figures are those of the first token of each answer. If target and foil begin with the
    same token, logit_diff is exactly 0.0, and foil_logit equals target_logit.

    Arguments as for Engine.measure, with these differences if an answer has several tokens:

    - mean ablation uses the mean over the reference prompts without their answers, at every
      position: the same constant for every token of an answer;
    - the donor of resample ablation is drawn once per example, as Engine.measure draws it; answer
      tokens take the activations of the donor's own target. So if the longer answer has k tokens,
      only references with a target of k - 1 or more can be donors;
    - a pair prompt, and those of its template, are continued with the example's own answer.

    Raises EngineError as Engine.measure does; for an example without such a donor; for patches at
    the last position or from another cluster's pair, and for noise (they would differ from token to
    token); and
    for a later token less probable than LEAST_PROBABILITY, whose logarithm is lost.
    """
    prompts = _first_tokens(engine, spans, "span")
    _check(engine, spans)
    if seed < 0:
        raise EngineError(f"seed must not be negative, got {seed}")
    for name, given in (
        ("clusters", clusters),
        ("subjects", subjects),
        ("pairs", pairs),
        ("templates", templates),
    ):
        if given is not None and len(given) != len(spans):
            raise EngineError(f"{name} has {len(given)} entries for {len(spans)} spans")
    lending = None if reference is None else _first_tokens(engine, reference, "reference span")
    if all(len(answer) == 1 for span in spans for answer in (span.target, span.foil)):
        return engine.measure(
            prompts,
            interventions,
            reference=lending,
            clusters=clusters,
            reference_clusters=reference_clusters,
            pairs=None if pairs is None else _first_tokens(engine, pairs, "pair span"),
            subjects=subjects,
            directions=directions,
            templates=templates,
            seed=seed,
            progress=progress,
        )
    for intervention in interventions:
        source = intervention.source
        if source.positions == "last" or source.donor in ("other", "noise"):
            raise EngineError(
                f"{intervention.label} cannot be measured on answers of several tokens: its "
                "position, donor or noise would be another for each of them"
            )
    resampled = any(intervention.source.donor == "resample" for intervention in interventions)
    lenders: list[Span] = []
    if resampled and reference is not None:
        lenders = _donors_of(spans, reference, clusters, reference_clusters, seed)

    places: dict[_Row, int] = {}
    owners: list[int] = []

    def rows_of(example: int, answer: Ids) -> list[int]:
        """The rows that ask for the answer's tokens after the first."""
        found = []
        for i in range(1, len(answer)):
            row = _row(spans, lenders, pairs, subjects, templates, example, answer, i)
            if row not in places:
                places[row] = len(spans) + len(places)
                owners.append(example)
            found.append(places[row])
        return found

    later = [
        (rows_of(example, span.target), rows_of(example, span.foil))
        for example, span in enumerate(spans)
    ]
    firsts = [
        _row(spans, lenders, pairs, subjects, templates, example, span.target, 0)
        for example, span in enumerate(spans)
    ]
    rows = [*firsts, *places]
    table = engine.measure(
        [*prompts, *(Prompt(row.ids, row.token, _other_token(row.token)) for row in places)],
        interventions,
        reference=lending,
        pairs=None if pairs is None else [Prompt(row.pair, 0, 1) for row in rows],
        subjects=None if subjects is None else [row.subject for row in rows],
        directions=directions,
        donors=[row.donor for row in rows] if lenders else None,
        templates=None if templates is None else [row.template for row in rows],
        seed=seed,
        progress=progress,
    )
    return _frame(engine, table, spans, later, owners)


def _frame(
    engine: "Engine",
    table: "pandas.DataFrame",
    spans: Sequence[Span],
    later: Sequence[tuple[list[int], list[int]]],
    owners: Sequence[int],
) -> "pandas.DataFrame":
    """The examples' own rows, with the figures of whole answers from all rows."""
    n = len(spans)
    n_rows = n + len(owners)

    def grid(name: str) -> np.ndarray:
        """A column by (intervention, row); the first n rows are the examples' own."""
        return np.array(table[name], dtype=np.float64).reshape(-1, n_rows)

    probability, kl = grid("target_probability"), grid("kl")
    low = np.argwhere(probability[:, n:] < LEAST_PROBABILITY)
    if low.size:
        block, row = (int(place) for place in low[0])
        label = table["intervention"].iloc[block * n_rows]
        raise EngineError(
            f"model {engine.name!r}: under {label} a token of an answer of example {owners[row]} "
            f"is less probable than {LEAST_PROBABILITY:g}; its logarithm is lost. Leave the "
            "example out, or change the model less"
        )
    # Only later tokens need logarithms: for the first token logit_diff is the difference.
    log = np.zeros_like(probability)
    log[:, n:] = np.log(probability[:, n:])
    same = np.array([span.target[0] == span.foil[0] for span in spans])
    logit_diff, foil_logit = grid("logit_diff")[:, :n], grid("foil_logit")[:, :n]
    logit_diff[:, same] = 0.0
    foil_logit[:, same] = grid("target_logit")[:, :n][:, same]
    difference, whole, divergence = logit_diff.copy(), probability[:, :n].copy(), kl[:, :n].copy()
    for example, (target, foil) in enumerate(later):
        right = log[:, target].sum(axis=1)
        difference[:, example] += right - log[:, foil].sum(axis=1)
        whole[:, example] *= np.exp(right)
        divergence[:, example] = kl[:, [example, *target]].mean(axis=1)
    frame = table[table["example"] < n].reset_index(drop=True)
    for name, values in {
        "logit_diff": logit_diff,
        "foil_logit": foil_logit,
        "seq_logprob_diff": difference,
        "seq_probability": whole,
        "seq_kl_mean": divergence,
    }.items():
        frame[name] = values.ravel()
    return frame


def _other_token(token: int) -> int:
    """A token other than this one: the engine requires a foil that differs from the target."""
    return 1 if token == 0 else 0


def _first_tokens(engine: "Engine", spans: Sequence[Span], what: str) -> list[Prompt]:
    """The prompts with the first token of each answer; an arbitrary foil if both are the same."""
    found = []
    for index, span in enumerate(spans):
        if not span.target or not span.foil or span.target == span.foil:
            raise EngineError(
                f"model {engine.name!r}: {what} {index} needs a target and a foil, of one token or "
                "more and not the same"
            )
        target, foil = span.target[0], span.foil[0]
        found.append(Prompt(span.ids, target, _other_token(target) if target == foil else foil))
    return found


def _row(
    spans: Sequence[Span],
    lenders: Sequence[Span],
    pairs: Sequence[Span] | None,
    subjects: Sequence[tuple[int, ...]] | None,
    templates: Sequence[tuple[Ids, ...]] | None,
    example: int,
    answer: Ids,
    i: int,
) -> _Row:
    """Token i of an answer, after the tokens before it."""
    given = answer[:i]
    lender = lenders[example] if lenders else None
    return _Row(
        spans[example].ids + given,
        answer[i],
        lender.ids + lender.target[:i] if lender else (),
        pairs[example].ids + given if pairs else (),
        subjects[example] if subjects else (),
        tuple(ids + given for ids in templates[example]) if templates else (),
    )


def _check(engine: "Engine", spans: Sequence[Span]) -> None:
    """Raise EngineError for spans that are too long for the model."""
    for answers in ([span.target for span in spans], [span.foil for span in spans]):
        longest = [
            Prompt(span.ids + answer[:-1], answer[-1], _other_token(answer[-1]))
            for span, answer in zip(spans, answers, strict=True)
        ]
        check_prompts(engine.loaded, longest, "span")


def _donors_of(
    spans: Sequence[Span],
    reference: Sequence[Span],
    clusters: Sequence[str] | None,
    reference_clusters: Sequence[str] | None,
    seed: int,
) -> list[Span]:
    """The resample donor of every example: a reference prompt whose target is long enough.

    Drawn by draw_donors, so it equals the donor of the same prompt with answers of one token, if
    all references are admissible.
    """
    if reference_clusters is not None and len(reference_clusters) != len(reference):
        raise EngineError(
            f"reference_clusters has {len(reference_clusters)} names for {len(reference)} "
            "reference spans; give one each"
        )
    owned: list[tuple[Span, str]] = []
    if clusters is None:
        owned = [(span, repr(span.ids)) for span in reference]
    elif reference_clusters is not None:
        owned = list(zip(reference, reference_clusters, strict=True))
    else:
        known: dict[Ids, set[str]] = {}
        for span, cluster in zip(spans, clusters, strict=True):
            known.setdefault(span.ids, set()).add(cluster)
        for index, span in enumerate(reference):
            if span.ids not in known:
                raise EngineError(
                    f"reference span {index} has none of the spans' prompts, so its cluster is "
                    "unknown; give reference_clusters"
                )
            owned += [(span, cluster) for cluster in sorted(known[span.ids])]
    lenders = []
    for example, span in enumerate(spans):
        own = repr(span.ids) if clusters is None else clusters[example]
        wanted = max(len(span.target), len(span.foil)) - 1
        able = [(other, cluster) for other, cluster in owned if len(other.target) >= wanted]
        try:
            (donor,) = draw_donors(
                [span.ids],
                [own],
                [other.ids for other, _ in able],
                [name for _, name in able],
                seed,
            )
        except EngineError:
            raise EngineError(
                f"example {example} ({len(span.ids)} tokens, cluster {own!r}, {wanted + 1} answer "
                "tokens) has no donor (resample): no reference prompt of another cluster is as "
                f"long and has a target of {wanted} tokens or more; add one"
            ) from None
        # One prompt may have several targets: take the first in sorted order.
        lenders.append(min(other for other, _ in able if other.ids == donor))
    return lenders
