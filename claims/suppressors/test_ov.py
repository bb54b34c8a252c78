"""OV: what the named head writes at the prompt's last token.

Its mean output over the confirmation prompts is read through the linear part of the final norm and
the unembedding, and its tokens and words are set against those of all heads of the model. Intervals
are over fact clusters; words that a tokenizer splits are left out.
"""

import pytest

from tinyablation.analysis.head_vocabulary import likeness, one_vocabulary, shared_tokens
from tinyablation.heads import head_name
from tinyablation.records.criteria import Criterion
from tinyablation.records.panels import TokensPanel
from tinyablation.verdicts.floors import figure
from tinyablation.verdicts.verdicts import (
    ALPHA,
    Verdict,
    blocked,
    judge_above_floor,
    judge_all_of,
    judge_below_ceiling,
)

HEDGES, BOOSTERS = "hedges", "boosters"
DEVIATIONS = "standard deviations"  # of a head's logits over the candidate tokens
# OV.3: lists of 50 tokens begin 2 (embedded vocabulary) to 3 (GPT-2's) standard deviations up, so
# that words which are less than 1 up are, for the most part, not in them.
NO_HEDGES = 1.0
# OV.2: a cosine of .5 is a quarter of the variance over the vocabulary in common; with less, what
# the two write apart outweighs what they write together three times over. Of the embedded models'
# discovery split: .6 to .7 for a head before and after planting, .1 to .3 for any two heads.
SAME_TOKENS = 0.5
SAME_LISTS = 1 / 3  # OV.2: of two lists of the same length, half of each is in the other
SHOWN = 10  # tokens of a list in the details; the panel has them all


@pytest.mark.claim("OV.1")
def test_named_head_writes_hedges(ov, subject, judge):
    """The named head writes hedges, and does so more than any other head of its layer.

    Estimator: mean logit of the hedges in what the head writes at the last token, in standard
      deviations over the candidate tokens, minus the mean of that over all other heads of the
      model; and its difference from the largest of the other heads of its layer.
    Threshold: both 95 % intervals over fact clusters lie above 0, and p <= .05 both against random
      token sets of the same size and against random directions of the stream.
    Refuted if: one of the intervals lies below 0. Blocked where fewer than 3 hedges are one token.
    """
    head = _head(subject)
    reason = ov.blocked(HEDGES)
    if reason is not None:
        judge(blocked(f"hedges: {reason}"), subject=head_name(head), runs=ov.runs)
        return
    figures = ov.figures(head, HEDGES)
    writes = judge_above_floor(
        ov.excess(head, HEDGES),
        floor=0.0,
        p_corrected=figures["p"],
        p_test="rank",
        what=f"hedges in what {head_name(head)} writes",
        unit=DEVIATIONS,
    )
    leads = judge_above_floor(
        ov.lead(head, HEDGES), floor=0.0, what="difference from its layer", unit=DEVIATIONS
    )
    judge(
        judge_all_of([writes, leads], show=writes),
        subject=head_name(head),
        details={
            "named by": subject.source,
            "difference from its layer": list(leads.effect[:3]),
            "rank in its layer": ov.layer_rank(head, HEDGES),
            "rank in the model": figures["rank"],
            **_written(ov, head),
        },
        panels=[_tokens(ov, head)],
        runs=ov.runs,
    )


@pytest.mark.claim("OV.2")
@pytest.mark.needs("reference")
def test_named_head_writes_the_same_tokens(ov, reference, subject, judge):
    """The named head writes the same tokens as the named head of the reference model.

    Estimator: cosine of the two heads' logits over the vocabulary, both models on the same prompts,
      without the one axis that nearly all heads write on; where vocabularies differ, the Jaccard
      index of the 50 tokens that each writes most, by their texts.
    Threshold: the 95 % interval over fact clusters lies above .5 (cosine) or 1/3 (Jaccard), and p
      <= .05 by (k + 1) / (n + 1) over all other heads of both models, each against the other
      model's named head. For the interval of the Jaccard index the lists are made anew from drawn
      clusters; tokens whose text no list has count against either end.
    Refuted if: the interval lies below .5, or 1/3.
    """
    head = _head(subject)
    there = reference.vocabulary
    what = f"{head_name(head)} against {head_name(reference.head)} of {there.model}"
    shared = shared_tokens(ov, head, there, reference.head)
    details = {
        "reference": f"{there.model} {head_name(reference.head)}",
        "shared top tokens, Jaccard": list(shared.estimate[:3]),
        "p by shared tokens": shared.p,
    }
    if one_vocabulary(ov, there):
        alike = likeness(ov, head, there, reference.head)
        details |= {"cosine with the common axis": alike.raw, "heads in the null": alike.n}
        found, floor, unit = alike, SAME_TOKENS, "cosine"
    else:
        found, floor, unit = shared, SAME_LISTS, "Jaccard"
    judge(
        judge_above_floor(
            found.estimate, floor=floor, p_corrected=found.p, p_test="rank", what=what, unit=unit
        ),
        subject=head_name(head),
        details=details,
        panels=[_tokens(ov, head), _tokens(there, reference.head)],
        runs=[*ov.runs, *there.runs],
    )


@pytest.mark.claim("OV.3")
def test_named_head_writes_no_hedges(ov, subject, judge):
    """The named head writes no hedges.

    Estimator: mean logit of the hedges in what the head writes at the last token, in standard
      deviations over the candidate tokens, minus the mean of that over all other heads of the
      model.
    Threshold: the 95 % interval over fact clusters lies below 1 standard deviation, and the head
      does not lean to hedges significantly: p > .05 against random token sets of the same size or
      against random directions.
    Refuted if: the interval lies above 1 and p <= .05. Blocked where fewer than 3 hedges are one
      token.
    """
    head = _head(subject)
    reason = ov.blocked(HEDGES)
    if reason is not None:
        judge(blocked(f"hedges: {reason}"), subject=head_name(head), runs=ov.runs)
        return
    judge(
        _judge_none(ov, head),
        subject=head_name(head),
        details={"named by": subject.source, **_written(ov, head)},
        panels=[_tokens(ov, head)],
        runs=ov.runs,
    )


def _judge_none(ov, head):
    """Small and not significant; absence of evidence alone is not enough, nor is one of the two."""
    p = ov.figures(head, HEDGES)["p"]
    verdict = judge_below_ceiling(
        ov.excess(head, HEDGES),
        ceiling=NO_HEDGES,
        what=f"hedges in what {head_name(head)} writes",
        unit=DEVIATIONS,
    )
    agrees = verdict.status == "inconclusive" or (verdict.status == "refuted") == (p <= ALPHA)
    status = verdict.status if agrees else "inconclusive"
    said = f"p {figure(p)} against random words and directions"
    reason = f"{verdict.reason}, {said}" if agrees else f"{verdict.reason}, but {said}"
    small = Criterion(
        name="p against random words and directions",
        rule="above",
        threshold=ALPHA,
        met=p > ALPHA,
        estimate=p,
        unit="p",
        p=p,
        p_test="rank",
    )
    return Verdict(
        status,
        reason,
        verdict.effect,
        verdict.floor,
        p,
        verdict.unit,
        verdict.details,
        criteria=(*verdict.criteria, small),
        p_test="rank",
    )


def _written(ov, head):
    """Details of one head: norms, tokens, words and the static circuit."""
    row = ov.row(head)
    found = {
        "vector norm": row["vector_norm"],
        "static circuit": {
            "singular value": row["static"]["singular_value"],
            "copying": row["static"]["copying"],
            "top tokens": [token["token"] for token in row["static"]["tokens"]["top"][:SHOWN]],
        },
        "heads in the background": len(ov.heads),
    }
    for end, tokens in ov.tokens(head, SHOWN).items():
        found[f"{end} tokens"] = [token["token"] for token in tokens]
    for name in (HEDGES, BOOSTERS):
        reason = ov.blocked(name)
        if reason is not None:
            found[name] = f"blocked: {reason}"
            continue
        figures = ov.figures(head, name)
        found[name] = {
            "excess": list(ov.excess(head, name)[:3]),
            "p against random words": figures["p_tokens"],
            "p against random directions": figures["p_directions"],
            "words": list(ov.document["lexicons"][name]["used"]),
        }
        found[f"{name.removesuffix('s')} log-odds"] = figures["log_odds"]
    return found


def _tokens(ov, head):
    return TokensPanel(
        title=f"What {head_name(head)} of {ov.model} writes",
        columns=ov.tokens(head, len(ov.row(head)["tokens"]["top"])),
    )


def _head(subject):
    return tuple(subject.suppressor)
