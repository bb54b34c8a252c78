"""DUAL: two routes of copying (Feucht et al. 2025, arXiv:2504.03022), posed of any model.

Token heads attend to the token after the earlier copy (the induction heads of IND.2); concept heads
attend to the end of the word that comes next, which is read on words of several tokens written
twice, for of a word of one token beginning and end are the same. The
paper finds its heads by what patching them brings back, and takes translation for what concept
heads are for. No condition of this project translates: facts, whose answer no head can copy, stand
for it, so that a refutation may be due to that.
"""

import pytest

from tinyablation.analysis.coalitions import set_name
from tinyablation.analysis.knockouts import costs_more
from tinyablation.corpora.examples import DISCOVERY
from tinyablation.measurement.attention_readings import RepeatedWords
from tinyablation.verdicts.verdicts import blocked, judge_all_of

MOST = 0.5  # of a token head's attention, as in IND.2
SOME = 0.1  # of a concept head's: four times what a head gives that attends to 40 tokens alike
LARGEST = 5  # heads zeroed together, as in IND.2


@pytest.mark.claim("DUAL.1")
def test_token_heads_copy_and_concept_heads_recall(repeated_tokens, findings, knockout, judge):
    """Token heads serve verbatim copying more than facts, and concept heads do the reverse.

    Estimator: share of LD that is lost without a set of heads on repeats minus the share lost on
      facts, and for concept heads the reverse. Token heads: at most five that lead by their prefix-
      matching score, among those above .5. Concept heads: at most five others, whose score is not
      above .5, that lead by their attention to the end of the next word, among those above .1 that
      attend to it more than to the word's first token. Both are chosen on the first half of the
      sequences; confirmation splits.
    Threshold: the 95 % intervals over clusters (of differences of independent figures) of both lie
      above .05 (intersection-union: no correction).
    Refuted if: one of them lies below that, with p <= .0125.
    Audit: planted control, selection correction, specificity
    """
    tokens = repeated_tokens.above("induction", MOST)[:LARGEST]
    if not tokens:
        model = repeated_tokens.model
        judge(blocked(f"no head of {model} has a prefix-matching score above {MOST:g}"))
    words = findings.attention(RepeatedWords())
    concepts = concept_heads(words, repeated_tokens.above("induction", MOST), judge)
    repeats, facts = (knockout(name, tokens, concepts) for name in ("repeats", "facts"))
    verdict = judge_all_of(
        [costs_more(repeats, facts, tokens), costs_more(facts, repeats, concepts)]
    )
    judge(
        verdict,
        subject=set_name(tokens),
        details={
            "concept heads": set_name(concepts),
            "lost without": {
                name: {each.condition: each.lost_shown(heads) for each in (repeats, facts)}
                for name, heads in (("token heads", tokens), ("concept heads", concepts))
            },
        },
        runs=[*repeated_tokens.runs, *words.runs, *repeats.runs, *facts.runs],
    )


def concept_heads(words, tokens, judge):
    """The heads of the other route; blocked where there are none."""
    ends, beginnings = (
        words.values(score, DISCOVERY).mean(axis=0) for score in ("concept", "induction")
    )
    towards = {head for head, more in zip(words.heads, ends > beginnings, strict=True) if more}
    heads = [head for head in words.above("concept", SOME) if head in towards - {*tokens}]
    if not heads:
        judge(
            blocked(
                f"no head of {words.model} attends to the end of the word that comes next more "
                "than to its first token, token heads aside"
            )
        )
    return tuple(heads[:LARGEST])
