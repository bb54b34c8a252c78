"""Which cells have a boundary, about which heads, and that they share what was measured.

Run: pytest tests/plugin/test_boundary.py
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fixtures.organisms.tokenizer import build_tokenizer
from tinyablation.analysis.counterexamples import DRAWS, N_GRAMMAR
from tinyablation.corpora.knowledge import load_knowledge
from tinyablation.interventions.interventions import AblateHeads
from tinyablation.plugin.boundary import boundary_of
from tinyablation.verdicts.floors import Noise

pytest_plugins = ["pytester"]
TABLES = Path(__file__).parents[2] / "corpora" / "knowledge"
HEADS = tuple((layer, head) for layer in range(2) for head in range(4))


class Engine:
    """Clean LD; zeroing heads changes it by the sum of what each does, on every prompt."""

    def __init__(self, changes, clean):
        self.changes, self.clean = changes, clean
        self.asked = []

    def measure(self, prompts, interventions):
        assert all(isinstance(each, AblateHeads) for each in interventions)
        self.asked.append((len(prompts), [each.label for each in interventions]))
        after = [sum(self.changes[head] for head in each.heads) for each in interventions]
        changed = [self.clean + change for change in (0.0, *after)]
        return pd.DataFrame({"logit_diff": np.repeat(changed, len(prompts))})


class Bench:
    seed = 0

    def __init__(self, changes, knowledge=TABLES, sliding_window=None, clean=5.0):
        self.engine = Engine({head: changes.get(head, 0.0) for head in HEADS}, clean)
        facts = SimpleNamespace(context=128, sliding_window=sliding_window)
        tokenizer = build_tokenizer(load_knowledge(TABLES))
        self.model = SimpleNamespace(tokenizer=tokenizer, bos_id=256, facts=facts)
        self.library = SimpleNamespace(knowledge=knowledge)


class Sweep:
    method = "zero_folded"
    heads = HEADS

    def noise(self):
        return Noise(0.01, "cuda in bfloat16")

    def top_suppressor(self, *, among):
        return among[-1]


@pytest.fixture
def config():
    return SimpleNamespace(stash=pytest.Stash())


@pytest.fixture
def judged(config):
    """Ask for the boundary of one cell."""

    def ask(bench, kind="suppression", subject="0:2", status="supported", **given):
        condition = given.pop("condition", "facts")
        given = given or {"sweep": Sweep()}
        marker = None if kind is None else pytest.mark.counterexample(kind).mark
        item = SimpleNamespace(
            config=config,
            funcargs={"model": bench, **given},
            get_closest_marker={"counterexample": marker}.get,
        )
        record = {"subject": subject, "condition": condition}
        return boundary_of(item, SimpleNamespace(status=status), record)

    return ask


@pytest.mark.parametrize("status", ["refuted", "inconclusive"])
def test_only_what_is_supported_has_a_boundary(judged, status):
    bench = Bench({(0, 2): -1.0})
    assert judged(bench, status=status) is None
    assert bench.engine.asked == []


def test_claims_that_say_nothing_of_one_prompt_have_none(judged):
    bench = Bench({(0, 2): -1.0})
    assert judged(bench, kind=None, subject=None) is None
    assert bench.engine.asked == []


def test_the_heads_of_the_record_are_ablated(judged):
    bench = Bench({(0, 2): -1.0, (0, 3): 0.5})
    found = judged(bench, subject="0:3 0:2", subsets=Sweep())
    assert found.failed == found.searched == N_GRAMMAR
    assert found.found[0].delta == -0.5
    assert "ablating 0:2 and 0:3 lowers LD" in found.rule
    assert {label for _, labels in bench.engine.asked for label in labels} == {
        "zero_folded:0.2+0.3"
    }


def test_a_lead_is_over_the_best_other_head(judged):
    """The head raises LD by 1, the other by 3: suppression holds, the lead fails everywhere."""
    bench = Bench({(0, 2): 1.0, (1, 3): 3.0})
    assert judged(bench).failed == 0
    found = judged(bench, "lead")
    assert found.failed == found.searched == N_GRAMMAR
    assert found.found[0].delta == -2.0
    assert "ablating 0:2 raises LD less than ablating 1:3" in found.rule


def test_a_model_that_knows_the_answers_fails_where_it_prefers_the_wrong_one(judged):
    tables = SimpleNamespace(noise=0.01)
    bench = Bench({})
    assert judged(bench, "knowledge", None, counting=tables).failed == 0
    wrong = Bench({}, clean=-5.0)
    found = judged(wrong, "knowledge", None, counting=tables)
    assert found.failed == found.searched == N_GRAMMAR
    assert (found.found[0].clean_ld, found.found[0].delta) == (-5.0, -5.0)
    assert "prefers the wrong answer" in found.rule
    assert {tuple(labels) for _, labels in wrong.engine.asked} == {()}
    assert judged(Bench({}, clean=-0.009), "knowledge", None, counting=tables).failed == 0


def test_the_noise_of_the_measurement_counts(judged):
    within, beyond = Bench({(0, 2): -0.009}), Bench({(0, 2): -0.011})
    assert judged(within).failed == 0
    assert judged(beyond).failed == N_GRAMMAR


@pytest.mark.slow
def test_claims_about_the_same_heads_share_a_sample(judged):
    bench = Bench({(0, 2): -1.0})
    first = judged(bench)
    assert bench.engine.asked[0] == (N_GRAMMAR, ["zero_folded:0.2"])
    before = len(bench.engine.asked)
    assert judged(bench, subject="0:2") == first
    again = bench.engine.asked[before:]
    assert again and all(size < N_GRAMMAR // 2 for size, _ in again)
    judged(bench, subject="0:1")
    judged(bench, condition="negation")
    judged(Bench({(0, 2): 1.0}))
    wholes = [asked for asked in bench.engine.asked if asked[0] == N_GRAMMAR]
    assert len(wholes) == 3


def test_a_sliding_window_bounds_the_prompts(judged):
    """The plainest prompts of tiny models have 6 tokens with BOS; all that fit are searched."""
    whole, short = Bench({(0, 2): -1.0}), Bench({(0, 2): -1.0}, sliding_window=6)
    assert judged(whole).searched == N_GRAMMAR
    found = judged(short)
    assert 0 < found.searched < N_GRAMMAR
    assert set(found.parts["prefix"]) == {"plain"}


def test_where_no_prompt_can_be_made_the_rule_says_why(judged, tmp_path):
    bench = Bench({(0, 2): -1.0}, knowledge=tmp_path)
    found = judged(bench)
    assert found.rule.startswith("not searched: ") and "cannot be read" in found.rule
    assert (found.grammar, found.searched, found.failed, found.found) == (0, 0, 0, [])
    assert "'none' has no grammar" in judged(Bench({}), condition="none").rule


def test_an_error_of_the_engine_comes_out(judged):
    bench = Bench({(0, 2): 1.0})

    def broken(prompts, interventions):
        raise RuntimeError("the device is gone")

    bench.engine.measure = broken
    with pytest.raises(RuntimeError, match="the device is gone"):
        judged(bench)


def test_where_nothing_fails_more_is_drawn(judged):
    found = judged(Bench({(0, 2): 1.0}))
    assert (found.failed, found.found) == (0, [])
    assert N_GRAMMAR < found.searched <= N_GRAMMAR + DRAWS


def test_a_marker_of_no_kind_is_a_usage_error(suite):
    marked = suite.claim().replace("@pytest", '@pytest.mark.counterexample("odd")\n@pytest', 1)
    suite.claims("test_heads", marked)
    result = suite.run("claims")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert 'its marker counterexample takes one of "suppression", "lead", "knowledge"' in text
