"""The boundary of a cell: prompts of its condition's grammar on which a supported claim fails.

Searched for claims that say what a single prompt would be a counterexample of, with the marker
`counterexample(kind)`. Claims about shares, ranks or several effects say nothing about one prompt.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import pytest

from tinyablation.plugin.marks import COUNTEREXAMPLE, KINDS
from tinyablation.plugin.options import is_claim
from tinyablation.records.trust import Boundary

if TYPE_CHECKING:
    from tinyablation.analysis.counterexamples import Ablation, About, Surveyed
    from tinyablation.corpora.grammar import Grammar
    from tinyablation.measurement.bench import Bench
    from tinyablation.verdicts.verdicts import Verdict

NOT_SEARCHED = "not searched: "  # begins the rule of a boundary that could not be searched for


class _Condition(NamedTuple):
    """What the claims about one model under one condition share.

    Up to eight claims are about four head sets; measuring a sample is half of a search's cost.
    """

    grammar: "Grammar"
    surveys: "dict[About, Surveyed]"


_conditions_key = pytest.StashKey["WeakKeyDictionary[Bench, dict[str, _Condition]]"]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in filter(is_claim, items):
        for marker in item.iter_markers(COUNTEREXAMPLE):
            if len(marker.args) != 1 or marker.args[0] not in KINDS:
                known = ", ".join(f'"{kind}"' for kind in KINDS)
                raise pytest.UsageError(
                    f"{item.nodeid}: its marker {COUNTEREXAMPLE} takes one of {known}"
                )


def boundary_of(
    item: pytest.Item, verdict: "Verdict", record: Mapping[str, Any]
) -> Boundary | None:
    """The result of a search for this cell; None if the claim is not supported, or not searched.

    record: the cell's, with its verdict and subject. That is where the claim is not supported, or
    has no marker. Where no prompt can be made, the boundary's rule says why.
    """
    marker = item.get_closest_marker(COUNTEREXAMPLE)
    if verdict.status != "supported" or marker is None:
        return None
    kind = marker.args[0]
    from tinyablation.analysis.counterexamples import Answer, search, survey
    from tinyablation.corpora.grammar import GrammarError
    from tinyablation.corpora.knowledge import KnowledgeError

    given: dict[str, Any] = item.funcargs  # type: ignore[attr-defined]
    bench: Bench = given["model"]
    about: About
    if kind == "knowledge":
        about, noise = Answer(), given["counting"].noise
    else:
        effects = given["sweep"] if "sweep" in given else given["subsets"]
        about, noise = _ablation(kind, record["subject"], effects), effects.noise()
    try:
        shared = _shared(item.config, bench, record["condition"])
    except (KnowledgeError, GrammarError) as error:  # corpora of a folder without knowledge tables
        reason = f"{NOT_SEARCHED}{error}"
        return Boundary(rule=reason, grammar=0, searched=0, failed=0, found=[])

    def measure(sentences: Sequence[Any]) -> Any:
        return about.measure(bench.engine, sentences)

    if about not in shared.surveys:
        shared.surveys[about] = survey(shared.grammar, measure, seed=bench.seed)
    return search(
        shared.grammar,
        measure,
        shared.surveys[about],
        rule=about.rule,
        noise=float(noise),
        seed=bench.seed,
        only_known=about.only_known,
    )


def _ablation(kind: str, subject: str, effects: Any) -> "Ablation":
    """The ablation of the heads that a record names ("0:7", "0:0 0:5 0:7")."""
    from tinyablation.analysis.counterexamples import Ablation
    from tinyablation.heads import Head

    heads = tuple(sorted(Head.parse(name) for name in subject.split()))
    over: tuple[Head, ...] = ()
    if kind == "lead":
        others = [head for head in effects.heads if head not in heads]
        over = (effects.top_suppressor(among=others),)
    return Ablation(heads, over, effects.method)


def _shared(config: pytest.Config, bench: "Bench", condition: str) -> _Condition:
    """The grammar of a condition for the bench's model, and its samples measured so far."""
    from tinyablation.corpora.grammar import grammar_of
    from tinyablation.corpora.knowledge import load_knowledge

    conditions = config.stash.setdefault(_conditions_key, WeakKeyDictionary())
    own = conditions.setdefault(bench, {})
    if condition not in own:
        loaded = bench.model
        limits = (loaded.facts.context, loaded.facts.sliding_window)
        grammar = grammar_of(
            condition,
            load_knowledge(bench.library.knowledge),
            loaded.tokenizer,
            bos=loaded.bos_id,
            longest=min(limit for limit in limits if limit is not None),
        )
        own[condition] = _Condition(grammar, {})
    return own[condition]
