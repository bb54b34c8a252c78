"""Which heads claims are about: declared, named by hand, found on discovery.

Run: pytest tests/plugin/test_subjects.py
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas
import pytest

from tests.plugin.conftest import CLAIMS_CONFTEST
from tests.synthetic_sweeps import make_sweep
from tinyablation.heads import Head
from tinyablation.plugin.subjects import (
    FOUND,
    HeadsError,
    beyond,
    found,
    not_asked_lines,
    parse_heads,
    subject,
)
from tinyablation.records.records import CONDITIONS

pytest_plugins = ["pytester"]


class Blocked(Exception):
    pass


def judge(verdict, **_):
    assert verdict.status == "blocked"
    raise Blocked(verdict.reason)


def leading(discovery, confirmation):
    """A sweep with these effects on each split."""
    one, other = make_sweep(discovery), make_sweep(confirmation)
    rows = [
        each.table[each.table["split"] == split]
        for each, split in ((one, "discovery"), (other, "confirmation"))
    ]
    return replace(one, table=pandas.concat(rows, ignore_index=True), _cache={})


# --- --heads -------------------------------------------------------------------------------------


def test_heads_are_read_in_either_notation_the_suppressor_first():
    one, two, three = (parse_heads(text) for text in ("L0H7", "0:7, 0:2", "L3H7,3:2,L3H5,"))
    assert one.suppressor == Head(0, 7) and not one.pair and not one.trio
    assert two.pair == (Head(0, 7), Head(0, 2)) and not two.trio
    assert three.suppressor == Head(3, 7) and three.trio[1:] == (Head(3, 2), Head(3, 5))
    assert {each.source for each in (one, two, three)} == {"named by --heads"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names 0 heads"),
        ("L0H7,L0H7", "names a head twice"),
        ("L0H7,L1H2", "heads of several layers"),
        ("L0H1,L0H2,L0H3,L0H4", "names 4 heads"),
        ("H7", "'H7' is not a head; write it \"L0H5\""),
        ("L0H7;L0H2", "is not a head"),
    ],
)
def test_what_names_no_heads_is_refused_in_one_line(text, message):
    with pytest.raises(HeadsError) as refusal:
        parse_heads(text)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


# --- found ---------------------------------------------------------------------------------------


def test_heads_are_the_leaders_of_layer_zero_on_the_discovery_split():
    sweep = leading({(0, 2): 3.0, (0, 1): 2.0, (0, 3): 1.0, (1, 0): 9.0}, {(0, 0): 3.0})
    chosen = found(sweep, judge)
    assert chosen.suppressor == sweep.top_suppressor(among=sweep.layer(0)) == (0, 2)
    assert chosen.trio == ((0, 2), (0, 1), (0, 3)) and chosen.pair == chosen.trio[:2]
    assert chosen.source == FOUND
    # The confirmation split, where another head leads, has no say.
    assert sweep.top_suppressor(among=sweep.layer(0), split="confirmation") == (0, 0)


def test_a_layer_of_two_heads_has_no_trio():
    sweep = make_sweep({})
    left = ~((sweep.table["layer"] == 0) & (sweep.table["head"] >= 2))
    two = replace(sweep, table=sweep.table[left], _cache={})
    with pytest.raises(Blocked, match="layer 0 of .* has 2 heads, too few for a trio"):
        found(two, judge)


class Bench:
    """Notes which conditions were swept."""

    def __init__(self, invalid=()):
        self.entry = SimpleNamespace(id="mine")
        self.invalid, self.swept = invalid, []

    @property
    def gate(self):
        return SimpleNamespace(reason_blocked=lambda name: "no" if name in self.invalid else None)

    def sweep(self, condition):
        self.swept.append(condition)
        return make_sweep({(0, 2): 3.0})


def subject_of(bench, monkeypatch, condition=None):
    """The subject of a cell of a model that nothing declares."""
    declared = SimpleNamespace(for_model=lambda name: None)
    monkeypatch.setattr("tinyablation.plugin.subjects.subjects", lambda config: declared)
    parameters = {"model": "mine"} | ({"condition": condition} if condition else {})

    def getfixturevalue(name):
        if name == "findings":
            return bench
        assert name == "valid"
        if condition in bench.invalid:
            raise Blocked("the gate")

    request = SimpleNamespace(
        config=None,
        node=SimpleNamespace(callspec=SimpleNamespace(params=parameters)),
        getfixturevalue=getfixturevalue,
    )
    return subject.__wrapped__(request, bench, judge)


def test_heads_are_found_by_condition_and_never_in_one_that_is_invalid(monkeypatch):
    bench = Bench(invalid=("logic",))
    assert subject_of(bench, monkeypatch, "negation").suppressor == Head(0, 2)
    assert bench.swept == ["negation"]
    with pytest.raises(Blocked, match="the gate"):
        subject_of(bench, monkeypatch, "logic")
    assert bench.swept == ["negation"]


def test_a_claim_that_spans_conditions_takes_the_heads_of_the_first_valid_one(monkeypatch):
    for invalid, expected in (((), "facts"), (("facts",), "negation")):
        bench = Bench(invalid)
        subject_of(bench, monkeypatch)
        assert bench.swept == [expected]
    bench = Bench(CONDITIONS)
    with pytest.raises(Blocked, match="no condition is valid for mine: facts: no; negation: no"):
        subject_of(bench, monkeypatch)
    assert not bench.swept


# --- sessions ------------------------------------------------------------------------------------

# A model whose sweep has head 2 of layer 0 leading, and the gate.
SWEPT = """
from types import SimpleNamespace

HEADS = tuple((0, head) for head in range(4))
SWEEP = SimpleNamespace(
    model="made-up", condition="facts", layer=lambda number: HEADS,
    mean_deltas=lambda split: dict(zip(HEADS, (0.0, 2.0, 3.0, 1.0))),
)


@pytest.fixture(scope="session")
def model(request):
    yield SimpleNamespace(
        entry=SimpleNamespace(id=request.param),
        facts=SimpleNamespace(n_layers=2, n_heads=4, weight_hash="0" * 64, commit=None),
        device="cpu", dtype="float32",
    )


@pytest.fixture(scope="session")
def findings(model):
    return SimpleNamespace(bench=model, sweep=lambda name: SWEEP)


@pytest.fixture
def valid(condition):
    return condition
"""
SUBJECTS = '[tiny-gpt2]\nsuppressor = "0:1"\ntrio = ["0:1", "0:2", "0:3"]\nsource = "planted"\n'
SAYS = "judge(verdict(), subject=str(subject.suppressor), details={'by': subject.source})"


@pytest.fixture
def models(suite):
    """One model with declared heads, one without; one claim about any heads, three with needs."""
    suite.models("tiny-gpt2", "tiny-mistral", hub=["gpt2"])
    suite.write("claims/conftest.py", CLAIMS_CONFTEST + SWEPT)
    suite.write("claims/subjects.toml", SUBJECTS)
    arguments = "model, condition, subject, judge, verdict"
    needing = [
        f"\n@pytest.mark.needs({need!r})" + suite.claim(claim, name, SAYS, arguments)
        for claim, name, need in (
            ("H1.5", "test_named", "named heads"),
            ("D.1", "test_course", "checkpoints"),
        )
    ]
    suite.claims(
        "test_heads",
        suite.claim("H1.1", "test_leads", SAYS, arguments),
        *needing,
    )
    suite.write("claims/predictions.toml", '"H1.1" = { "tiny-gpt2*" = "supported" }\n')
    return suite


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_model_without_declared_heads_is_asked_what_concerns_it(models, workers):
    result = models.accept("-k", "facts", *workers)
    records = models.records()
    assert set(records) == {
        "test_leads[tiny-gpt2-facts]",
        "test_named[tiny-gpt2-facts]",
        "test_course[tiny-gpt2-facts]",
        "test_leads[tiny-mistral-facts]",
    }
    declared, own = (records[f"test_leads[{name}-facts]"] for name in ("tiny-gpt2", "tiny-mistral"))
    assert declared["subject"] == "0:1" and "heads" not in declared["details"]
    assert own["subject"] == "0:2" and own["details"]["heads"] == "chosen on discovery"
    line = "not asked of tiny-mistral: D.1, H1.5 (they need heads that are named beforehand"
    assert result.stdout.str().count(line) == 1
    assert "reports lost" not in result.stdout.str()


def test_an_unknown_need_is_refused(models):
    text = (models.root / "claims" / "test_heads.py").read_text()
    models.write("claims/test_heads.py", text.replace("'named heads'", "'heads'"))
    result = models.run("claims", "-k", "facts")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "needs 'heads', which is unknown; known: named heads" in result.stderr.str()


def test_heads_by_hand_replace_the_declared_ones_and_nothing_is_registered(models):
    models.accept("-k", "gpt2 and facts")
    before = models.snapshots()
    arguments = ("--model", "tiny-gpt2", "--heads", "L0H3,0:1", "-k", "facts")
    body = SAYS.replace("verdict()", "verdict('refuted')")
    text = (models.root / "claims" / "test_heads.py").read_text()
    text = text.replace(SAYS, f"print(rerun(request.node)); {body}")
    text = text.replace("judge, verdict)", "judge, verdict, request)")
    models.write(
        "claims/test_heads.py",
        f"from tinyablation.plugin.judge import rerun_command as rerun\n{text}",
    )
    result = models.run("claims", *arguments, "-s")
    assert result.ret == 0, result.stdout.str()
    record = models.records()["test_leads[tiny-gpt2-facts]"]
    assert record["subject"] == "0:3" and record["details"]["heads"] == "named by --heads"
    assert record["prediction"] is None and record["outcome"] == "xfailed"
    assert record["drift"] is None and record["prediction_changed"] is None
    assert models.snapshots() == before
    assert "not asked of tiny-gpt2: D.1, H1.5" in result.stdout.str()
    node = "pytest 'claims/test_heads.py::test_leads[tiny-gpt2-facts]'"
    assert f"{node} --model tiny-gpt2 --heads L0H3,0:1\n" in result.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "L0H7"], "this session has 2: give one --model"),
        (
            ["--heads", "L0H7", "--model", "tiny-gpt2", "--model", "gpt2"],
            "this session has 2: give one --model",
        ),
        (["--heads", "L0H7,L1H7", "--model", "tiny-gpt2"], "heads of several layers"),
    ],
)
def test_wrong_heads_are_usage_errors_before_any_worker_starts(models, arguments, message):
    result = models.run("claims", *arguments, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str() and "workers" not in result.stdout.str()


def test_heads_that_the_model_lacks_are_told_by_its_shape(monkeypatch):
    named = SimpleNamespace(subjects={"mine": parse_heads("L0H7,L0H2")})
    monkeypatch.setattr("tinyablation.plugin.subjects.subjects", lambda config: named)
    monkeypatch.setattr(
        "tinyablation.plugin.subjects.session_models",
        lambda config: SimpleNamespace(by_hand="mine"),
    )
    config = SimpleNamespace(option=SimpleNamespace(heads="L0H7,L0H2"))
    shape = SimpleNamespace(n_layers=4, n_heads=8)
    assert beyond(config, "mine", shape) is None
    assert beyond(config, "another", SimpleNamespace(n_layers=1, n_heads=1)) is None
    assert beyond(config, "mine", SimpleNamespace(n_layers=4, n_heads=7)) == (
        "--heads L0H7,L0H2: mine has 4 layers of 7 heads, counted from 0, and L0H7 is not among "
        "them"
    )


def test_models_that_are_not_asked_the_same_share_a_line():
    cells = [("b", "H1.5"), ("a", "H1.5"), ("a", "D.1"), ("b", "D.1"), ("c", "D.1")]
    first, second = not_asked_lines(cells)
    assert first.startswith("not asked of a, b: D.1, H1.5 (")
    assert second.startswith("not asked of c: D.1 (")


def test_the_suppressor_is_the_one_that_sweeps_name():
    sweep = make_sweep({})
    means = sweep.mean_deltas("discovery")
    chosen = found(sweep, judge)
    assert chosen.suppressor == sweep.top_suppressor(among=sweep.layer(0))
    assert np.all(np.diff([means[tuple(head)] for head in chosen.trio]) <= 0)
