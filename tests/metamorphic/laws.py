"""What must hold of the engine's tables whatever the prompts: each law compares two ways to one figure.

A law raises AssertionError, with the prompt it does not hold for. The tests in test_*.py search for
cases on which it does not; test_faults.py shows that each finds its fault.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.conftest import N_LAYERS
from tests.metamorphic.cases import (
    LENDERS,
    Case,
    Question,
    ids_of,
    prompts_of,
)
from tests.metamorphic.searching import ROUNDING, assert_same_rows
from tinyablation.corpora.answers import Span
from tinyablation.corpora.tokenisation import Prompt
from tinyablation.engine.engine import Engine
from tinyablation.engine.spans import measure_spans
from tinyablation.engine.tables import BASELINE
from tinyablation.heads import Head
from tinyablation.interventions.interventions import (
    AblateHeads,
    PatchHeads,
    PatchResidual,
    ScaleHeads,
    Steer,
)


def block(frame: Any, label: str) -> Any:
    """The rows of one intervention."""
    return frame[frame["intervention"] == label]


# What a batch is made of.


def order_does_not_matter(
    engine: Engine, case: Case, prompts: Sequence[int], interventions: Sequence[int]
) -> None:
    """Prompts and interventions in another order give the same rows in that order."""
    n = len(case.questions)
    moved = replace(
        case,
        questions=tuple(case.questions[place] for place in prompts),
        interventions=tuple(case.interventions[place] for place in interventions),
    )
    blocks = [0, *(1 + place for place in interventions)]
    expected = case.measure(engine).iloc[[n * b + place for b in blocks for place in prompts]]
    assert_same_rows("order", case.questions, moved.measure(engine), expected)


def company_does_not_matter(engine: Engine, case: Case, more: Case) -> None:
    """Further prompts before and after, and further interventions, change no row."""
    n = len(more.questions)
    new = tuple(each for each in more.interventions if each not in case.interventions)
    together = replace(
        case,
        questions=(*more.questions, *case.questions, *more.questions[::-1]),
        interventions=(*new, *case.interventions),
    )
    frame = together.measure(engine)
    own = frame["example"].between(n, n + len(case.questions) - 1)
    kept = frame["intervention"].isin([BASELINE, *(each.label for each in case.interventions)])
    assert_same_rows("company", case.questions, frame[own & kept], case.measure(engine))


def history_does_not_matter(engine: Engine, case: Case, before: Case) -> None:
    """An engine that has measured something else says what a new one says, to the last bit."""
    expected = case.measure(Engine(engine.loaded))
    before.measure(engine)
    assert_same_rows("history", case.questions, case.measure(engine), expected, within=0.0)


def reference_order_does_not_matter(engine: Engine, case: Case) -> None:
    """The reference backwards, and every prompt of it twice, has the same means and donors."""
    everything = [*case.reference, *LENDERS]
    turned = replace(case, reference=(*everything[::-1], *case.reference))
    found, expected = turned.measure(engine), case.measure(engine)
    assert_same_rows("order of the reference", case.questions, found, expected)


def only_what_is_drawn_depends_on_the_seed(engine: Engine, case: Case, seed: int) -> None:
    """The same seed gives the same table to the last bit; another moves only what borrows by it."""
    expected = case.measure(engine)
    assert_same_rows("same seed", case.questions, case.measure(engine), expected, within=0.0)
    found = replace(case, seed=seed).measure(engine)
    fixed = [BASELINE]
    fixed += [i.label for i in case.interventions if i.source.donor not in ("resample", "other")]
    held = expected["intervention"].isin(fixed)
    assert_same_rows("other seed", case.questions, found[held], expected[held])


# What changes nothing, and what is the same.


def identities_change_nothing(
    engine: Engine, question: Question, heads: tuple[Head, ...], shams: Sequence[Any]
) -> None:
    """Scale 1, steering by 0: nothing, to the last bit. Own activations put back: rounding."""
    exact = (ScaleHeads(heads, 1.0), Steer(heads[0][0], "truth", 0.0))
    case = Case((question,), (*exact, *shams))
    frame = case.measure(engine)
    clean = block(frame, BASELINE)
    for identity in exact:
        assert_same_rows(
            "identity", case.questions, block(frame, identity.label), clean, within=0.0
        )
    for sham in shams:
        assert_same_rows(f"sham {sham.label}", case.questions, block(frame, sham.label), clean)
    own = AblateHeads(heads, "resample")
    lent = engine.measure(case.prompts, [own], reference=case.prompts, donors=[case.prompts[0].ids])
    assert_same_rows("its own donor", case.questions, block(lent, own.label), clean)


def ablation_is_by_hand(engine: Engine, question: Question, heads: Sequence[Head]) -> None:
    """Zeroing heads is zeroing each of them by hand, in whatever order and however often."""
    arch, loaded = engine.architecture, engine.loaded
    size = loaded.facts.d_model // loaded.facts.n_heads
    handles = []
    for layer, head in heads:

        def zero(_: Any, args: Any, own: int = head * size) -> Any:
            z = args[0].clone()
            z[..., own : own + size] = 0
            return (z, *args[1:])

        handles.append(arch.layers[layer].output.register_forward_pre_hook(zero))
    try:
        logits = plain_logits(engine, question.prompt())
    finally:
        for handle in handles:
            handle.remove()
    once = AblateHeads(tuple(sorted(set(heads))))
    row = Case((question,), (once,)).measure(engine).iloc[1]
    due = logits[question.prompt().target] - logits[question.prompt().foil]
    assert abs(row["logit_diff"] - due.item()) <= ROUNDING, (
        f"ablation by hand, {list(heads)}: LD is {due.item():.9g}, and {row['logit_diff']:.9g} by "
        f"{once.label}, for the prompt\n  {question!r}"
    )


def simpler_interventions_are_the_same(engine: Engine, case: Case) -> None:
    """What an intervention says it equals gives its figures when both are really run."""
    plain = [each.plain(N_LAYERS) for each in case.interventions]
    simpler = tuple(dict.fromkeys(each for each in plain if each is not None))
    found = case.measure(engine)
    due = replace(case, interventions=simpler).measure(engine)
    for intervention, same in zip(case.interventions, plain, strict=True):
        assert_same_rows(
            f"{intervention.label} is {same.label if same else BASELINE}",
            case.questions,
            block(found, intervention.label),
            block(due, same.label if same else BASELINE),
        )


def swapped_answers_negate(engine: Engine, case: Case) -> None:
    """LD and its change have the other sign, to the last bit; what asks for no answer stays."""
    expected = case.measure(engine)
    swapped = replace(case, questions=tuple(each.swapped() for each in case.questions))
    found = swapped.measure(engine)
    turned = found.assign(
        logit_diff=-found["logit_diff"],
        seq_logprob_diff=-found["seq_logprob_diff"],
        target_logit=found["foil_logit"],
        foil_logit=found["target_logit"],
    )
    of_the_target = ("target_probability", "seq_probability", "target_rank")
    assert_same_rows(
        "swapped answers", case.questions, turned, expected, within=0.0, besides=of_the_target
    )
    n = len(case.questions)
    change, back = (
        frame["logit_diff"].to_numpy().reshape(-1, n) - frame["logit_diff"].to_numpy()[:n]
        for frame in (expected, found)
    )
    assert (change == -back).all(), f"swapped answers: Delta is not negated in {case!r}"


# What lends, and what is put in.


def whole_streams_give_the_donors_logits(engine: Engine, case: Case, layers: Sequence[int]) -> None:
    """All positions of any one stream patched: the figures are those of the donor's prompt.

    But for KL, which is from the prompt's own distribution.
    """
    patches = tuple(PatchResidual(layer, positions="all") for layer in layers)
    frame = replace(case, interventions=patches).measure(engine)
    donors = [question.prompt(question.pair) for question in case.questions]
    expected = engine.measure(donors, [])
    for patch in patches:
        assert_same_rows(
            f"donor's logits by {patch.label}",
            case.questions,
            block(frame, patch.label),
            expected,
            besides=("kl", "seq_kl_mean"),
        )


def the_mean_over_one_token_is_its_own_value(
    engine: Engine, question: Question, heads: tuple[Head, ...]
) -> None:
    """Of a reference of one word, the mean puts in what the word's own patch puts in.

    question: of one word, so that prompt and pair are as long; heads of the last layer, after which
    no other position is read.
    """
    mean, patch = AblateHeads(heads, "mean"), PatchHeads(heads, "last")
    frame = engine.measure(
        [question.prompt()],
        [mean, patch],
        reference=prompts_of([question.pair]),
        pairs=[question.prompt(question.pair)],
    )
    found, expected = block(frame, mean.label), block(frame, patch.label)
    assert_same_rows("mean over one word", [question], found, expected)


def zero_is_zero_folded(engine: Engine, case: Case) -> None:
    """In a model without value biases, to the last bit."""
    folded = tuple(AblateHeads(each.heads, "zero_folded") for each in case.interventions)
    found, expected = replace(case, interventions=folded).measure(engine), case.measure(engine)
    assert_same_rows("zero_folded", case.questions, found, expected, within=0.0)


# Answers of several tokens.


def short_answers_keep_their_figures(engine: Engine, case: Case, last: str) -> None:
    """A span of one token has the LD, P and KL of Engine.measure, also among longer answers."""
    prompts, n = case.prompts, len(case.questions)
    spans = [Span(each.ids, (each.target,), (each.foil,)) for each in prompts]
    longer = [span._replace(target=(*span.target, *ids_of(last)[1:])) for span in spans]
    given: dict[str, Any] = {"subjects": [each.subject for each in case.questions] * 2}
    given["pairs"] = [
        Span(question.prompt(question.pair).ids, *span[1:])
        for question, span in zip((*case.questions, *case.questions), spans * 2, strict=True)
    ]
    frame = measure_spans(engine, [*longer, *spans], case.interventions, **given)
    expected = engine.measure(
        prompts,
        case.interventions,
        pairs=[question.prompt(question.pair) for question in case.questions],
        subjects=given["subjects"][:n],
    )
    assert_same_rows("spans of one token", case.questions, frame[frame["example"] >= n], expected)


def answers_are_chains(engine: Engine, question: Question, second: str, heads: Any) -> None:
    """p(answer) = p(first token) p(second | first), each asked for as a prompt of its own."""
    ablation = AblateHeads(heads)
    prompt = question.prompt()
    rest = replace(question, words=(*question.words, question.target), target=second)
    if rest.target == rest.foil:
        rest = replace(rest, foil=next(word for word in LENDERS[0].split() if word != second))
    frame = measure_spans(
        engine,
        [Span(prompt.ids, (prompt.target, *ids_of(second)[1:]), (prompt.foil,))],
        [ablation],
    )
    first = Case((question,), (ablation,)).measure(engine)
    then = Case((rest,), (ablation,)).measure(engine)
    probability = first["target_probability"] * then["target_probability"]
    due = first.assign(
        seq_probability=probability,
        seq_logprob_diff=first["logit_diff"] + np.log(then["target_probability"]),
        seq_kl_mean=(first["kl"] + then["kl"]) / 2,
    )
    assert_same_rows(f"answer in two tokens, {second!r} last", [question], frame, due)


# The plain model, which everything is held against.


def padding_does_not_matter(
    engine: Engine, questions: Sequence[Question], left: Sequence[int], right: Sequence[int]
) -> None:
    """Padded at will on both sides, masked and numbered, rows are read as the engine reads each.

    left, right: pads of each prompt, beyond what makes the batch rectangular (on the right).
    """
    ids = [question.prompt().ids for question in questions]
    longest = max(map(sum, zip(left, map(len, ids), right, strict=True)))
    tokens = torch.full((len(ids), longest), ids_of(LENDERS[0])[1])
    mask = torch.zeros_like(tokens)
    for row, (own, before) in enumerate(zip(ids, left, strict=True)):
        tokens[row, before : before + len(own)] = torch.tensor(own)
        mask[row, before : before + len(own)] = 1
    # A pad before the prompt has no position of its own; one after it attends to what it likes.
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    with torch.no_grad():
        logits = engine.loaded.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits.double()
    frame = engine.measure([question.prompt() for question in questions], [])
    for row, question in enumerate(questions):
        own = logits[row, left[row] + len(ids[row]) - 1]
        prompt = question.prompt()
        due, alone = (
            frame["logit_diff"][row],
            plain_logits(engine, prompt),
        )
        found = (own[prompt.target] - own[prompt.foil]).item()
        worst = max(abs(found - due), (own - alone).abs().max().item())
        assert worst <= ROUNDING, (
            f"padding: with {left[row]} pads before and {longest - left[row] - len(ids[row])} after "
            f"it, LD is {found:.9g} where {due:.9g} is due, for the prompt\n  {question!r}"
        )


def plain_logits(engine: Engine, prompt: Prompt) -> torch.Tensor:
    """Last-token logits of the model's own forward on the prompt alone, [vocab] in float64."""
    with torch.no_grad():
        found: torch.Tensor = engine.loaded.model(torch.tensor([prompt.ids])).logits[0, -1]
    return found.double()
