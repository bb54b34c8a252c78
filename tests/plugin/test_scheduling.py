"""Run: pytest tests/plugin/test_scheduling.py"""

from collections import Counter
from types import SimpleNamespace

import pytest

from tinyablation.plugin import scheduling
from tinyablation.plugin.environment import cores, threads_per_worker
from tinyablation.plugin.scheduling import Unit, choose, unit_of
from tinyablation.plugin.session_models import model_in_nodeid

pytest_plugins = ["pytester"]

MODELS = ("tiny-gpt2", "tiny-gpt2-plain", "tiny-llama")


@pytest.mark.parametrize(
    ("nodeid", "model"),
    [
        ("claims/test_h.py::test_a[tiny-gpt2-facts]", "tiny-gpt2"),
        ("claims/test_h.py::test_a[tiny-gpt2-plain-facts]", "tiny-gpt2-plain"),
        ("claims/test_h.py::test_a[tiny-gpt2]", "tiny-gpt2"),
        ("claims/test_h.py::TestB::test_a[tiny-llama-facts-x[1]]", "tiny-llama"),
        ("claims/test_h.py::test_a[tiny-gpt2xl-facts]", None),
        ("claims/test_h.py::test_a[zero-tiny-gpt2]", None),
        ("claims/test_h.py::test_a", None),
    ],
)
def test_model_is_the_longest_id_that_begins_the_bracket(nodeid, model):
    assert model_in_nodeid(nodeid, MODELS) == model
    unit = unit_of(nodeid, MODELS)
    assert (unit.model, unit.module) == ((model, "") if model else ("", "claims/test_h.py"))


@pytest.mark.parametrize(
    ("cell", "unit"),
    [
        ("tiny-gpt2-facts", ("tiny-gpt2", "facts")),
        ("gpt2-facts", ("gpt2", "facts")),
        ("gpt2-medium-facts", ("gpt2-medium", "facts")),
        ("gpt2-medium-logic-zero", ("gpt2-medium", "logic")),
        ("gpt2-medium", ("gpt2-medium", "all")),
        ("gpt2-medium-zero", ("gpt2-medium", "all")),
    ],
)
def test_the_unit_is_a_model_under_one_condition(cell, unit):
    models = ("tiny-gpt2", "gpt2", "gpt2-medium")
    nodeid = f"claims/test_h.py::test_a[{cell}]"
    assert unit_of(nodeid, models) == Unit(*unit)
    assert unit_of(nodeid, models, split=models) == Unit(*unit, "claims/test_h.py")
    of_module = "claims/test_h.py" if unit == ("gpt2-medium", "all") else ""
    assert unit_of(nodeid, models, pretrained=models[1:]) == Unit(*unit, of_module)


# --- which unit comes next ------------------------------------------------------------------------

PAIRS = ("a", "a-plain", "b", "b-plain")
TWINS = {"a": "a-plain", "a-plain": "a", "b": "b-plain", "b-plain": "b"}
EACH = ("facts", "logic", "all")


def dealt(costs: dict[str, float], workers: int) -> tuple[list[list[Unit]], list[float]]:
    """By worker, the units it got and when it was done, if a unit of a model takes costs[model]."""
    waiting = [Unit(model, condition) for model in costs for condition in EACH]
    taken: list[list[Unit]] = [[] for _ in range(workers)]
    free = [0.0] * workers
    while waiting:
        worker = free.index(min(free))
        at = ["" if not units else units[-1].model for units in taken]
        others = {model for number, model in enumerate(at) if number != worker}
        unit = choose(waiting, at[worker], others, tuple(costs), TWINS)
        waiting.remove(unit)
        taken[worker].append(unit)
        free[worker] += costs[unit.model]
    return taken, free


def begun(units: list[Unit]) -> list[str]:
    """The models of a worker in the order in which it came to them, again where it came back."""
    return [
        unit.model
        for number, unit in enumerate(units)
        if number == 0 or units[number - 1].model != unit.model
    ]


def test_a_worker_goes_from_a_model_to_its_twin():
    taken, _ = dealt(dict.fromkeys(PAIRS, 1.0), 2)
    assert [begun(units) for units in taken] == [["a", "a-plain"], ["b", "b-plain"]]
    assert all(unit.condition == EACH[number % 3] for number, unit in enumerate(taken[0]))


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("costs", [(1, 1, 1, 1), (1, 1, 3, 4), (9, 1, 1, 2)])
def test_no_worker_comes_back_to_a_model_and_all_end_within_a_condition(workers, costs):
    by_model = dict(zip(PAIRS, costs, strict=True))
    taken, free = dealt(by_model, workers)
    units = [unit for own in taken for unit in own]
    assert len(units) == len(set(units)) == len(PAIRS) * len(EACH)
    for own in taken:
        assert len(begun(own)) == len(set(begun(own)))
    assert max(free) - min(free) <= max(costs)


def test_help_is_given_with_a_condition_that_is_far_off():
    waiting = [Unit("a", "logic"), Unit("b", "facts"), Unit("b", "logic"), Unit("b", "all")]
    assert choose(waiting, "a-plain", {"a", "b"}, PAIRS, TWINS) == Unit("b", "logic")
    assert choose(waiting[3:], "a-plain", {"b"}, PAIRS, TWINS) == Unit("b", "all")


def test_other_models_and_tests_without_one_are_taken_as_they_come():
    waiting = [Unit("", "", "claims/test_x.py"), Unit("a", "facts"), Unit("gpt2", "facts")]
    assert choose(waiting, "a", (), PAIRS, TWINS) == waiting[0]
    assert choose(waiting[1:], "gpt2", (), PAIRS, TWINS) == waiting[1]
    large = [Unit("gpt2", "logic"), Unit("gpt2-xl", "facts")]
    assert choose(large, "gpt2-xl", ("gpt2",), PAIRS, TWINS) == large[0]
    # They come before help with an embedded model.
    mixed = [Unit("a", "logic"), *large]
    assert choose(mixed, "b", ("a",), PAIRS, TWINS) == large[0]
    assert choose(mixed, "b", (), PAIRS, TWINS) == mixed[0]


def test_the_longest_prompts_of_a_large_model_begin_first():
    """Logic's gate takes ten times as long as that of facts; begun last, it was waited for."""
    waiting = [
        *(Unit("gpt2", condition, module) for condition in EACH for module in ("x", "y")),
        Unit("gpt2-xl", "facts"),
    ]
    order = []
    while waiting:
        order.append(choose(waiting, "gpt2", (), PAIRS, TWINS))
        waiting.remove(order[-1])
    last = [condition for condition in EACH if condition != "all"][::-1]
    spans = [condition for condition in EACH if condition == "all"]
    assert order == [
        *(
            Unit("gpt2", condition, module)
            for condition in [*last, *spans]
            for module in ("x", "y")
        ),
        Unit("gpt2-xl", "facts"),
    ]


# --- workers that are lost, and those that replace them -------------------------------------------

CELLS = [f"claims/test_h.py::test_a[a-{condition}]" for condition in ("facts", "logic", "negation")]


class Worker:
    """What xdist's controller of a worker shows its scheduler."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def scheduler(monkeypatch):
    monkeypatch.setattr(scheduling, "registry", lambda _: SimpleNamespace(ids=("a",), items=dict))
    listed = SimpleNamespace(local_ids={"a"})
    monkeypatch.setattr(scheduling, "session_models", lambda _: SimpleNamespace(listed=listed))
    monkeypatch.setattr(scheduling, "conditions", lambda _: scheduling.CONDITIONS)
    return scheduling._scheduler_class()(
        SimpleNamespace(
            getvalue=lambda _: ["2*popen"], option=SimpleNamespace(loadscopereorder=False)
        ),
        None,
    )


def begin(scheduler, *workers):
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, CELLS)
    scheduler.schedule()


def test_a_worker_may_end_while_the_one_that_replaces_another_still_collects(scheduler):
    """The one had been told to end before the other was lost: what that had is the third's."""
    first, second, third = map(Worker, ("gw0", "gw1", "gw2"))
    begin(scheduler, first, second)
    assert sorted(first.sent + second.sent) == [0, 1, 2]
    for index in first.sent:
        scheduler.mark_test_complete(first, index)
    assert first.shutting_down
    crashed, *rest = second.sent
    assert scheduler.remove_node(second) == CELLS[crashed]
    scheduler.add_node(third)
    assert scheduler.remove_node(first) is None
    assert third.sent == [] and not third.shutting_down
    scheduler.add_node_collection(third, CELLS)
    scheduler.schedule()
    assert third.sent == rest
    for index in rest:
        scheduler.mark_test_complete(third, index)
    assert third.shutting_down and scheduler.tests_finished


def test_one_that_replaces_another_may_be_ready_before_another_that_does(scheduler):
    first, second, third, fourth = map(Worker, ("gw0", "gw1", "gw2", "gw3"))
    begin(scheduler, first, second)
    lost = [scheduler.remove_node(first), scheduler.remove_node(second)]
    assert len(set(lost)) == 2
    scheduler.add_node(third)
    scheduler.add_node(fourth)
    scheduler.add_node_collection(third, CELLS)
    scheduler.schedule()
    assert [CELLS[index] for index in third.sent] == [cell for cell in CELLS if cell not in lost]
    assert fourth.sent == [] and not fourth.shutting_down
    scheduler.add_node_collection(fourth, CELLS)
    scheduler.schedule()
    assert fourth.sent == [] and fourth.shutting_down


def test_one_that_collects_other_tests_ends_the_session(scheduler):
    """Nobody would run what is left: xdist would wait for it, or pass over it."""
    first, second, third = map(Worker, ("gw0", "gw1", "gw2"))
    begin(scheduler, first, second)
    scheduler.remove_node(second)
    scheduler.add_node(third)
    with pytest.raises(RuntimeError, match="gw2.*other tests.*Run it again"):
        scheduler.add_node_collection(third, CELLS[:2])


def test_threads_share_the_cores():
    assert threads_per_worker(SimpleNamespace(workerinput={"workercount": 10_000})) == 1
    assert threads_per_worker(SimpleNamespace()) == cores()


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_each_model_is_loaded_once(suite, workers):
    """loadgroup would load every model in every worker; serial pytest once a condition.

    One worker may help another out at the end, with a model that it then has, too.
    """
    body = "time.sleep(.02); print(os.environ.get('OMP_NUM_THREADS')); judge(verdict())"
    suite.claims("test_heads", "import time\n", suite.claim("H1.1", "test_a", body))
    suite.claims("test_validity", "import time\n", suite.claim("V.1", "test_b", body))
    suite.models(*MODELS, "tiny-neox")
    result = suite.accept("-n", str(workers))
    result.assert_outcomes(passed=2 * 4 * 4)
    loads = suite.loads()
    assert {model for _, model in loads} == {*MODELS, "tiny-neox"}
    assert len(loads) == len(set(loads)) <= 4 + max(1, workers) - 1
    # They are spread over the workers: none idles.
    assert len({worker for worker, _ in loads}) == max(1, workers)


def test_workers_share_a_hub_model_and_load_it_at_most_once_a_unit(suite):
    """Four conditions and what spans them are five units, the last begun last."""
    body = "time.sleep(.3); judge(verdict())"
    suite.claims("test_heads", "import time\n", suite.claim("H1.1", "test_a", body))
    suite.claims(
        "test_validity",
        "import time\n",
        suite.claim("V.1", "test_b", body),
        suite.claim("V.2", "test_all", body, arguments="model, judge, verdict"),
    )
    suite.models("tiny-gpt2", hub=["mistral-7b"])
    result = suite.run("claims", "-k", "mistral", "-n", "4", "-v")
    result.assert_outcomes(passed=9, deselected=0)
    loads = suite.loads()
    # Each of four workers has a condition; one of them goes on to "all" with the model it has.
    assert len(loads) == 4 and {model for _, model in loads} == {"mistral-7b"}
    assert len({worker for worker, _ in loads}) == 4
    # Serially it is loaded once.
    suite.run("claims", "-k", "mistral").assert_outcomes(passed=9, deselected=9)
    assert suite.loads() == [("main", "mistral-7b")]
    # With an embedded one beside it, too, no worker loads a model twice.
    suite.accept("-m", "hub or not hub", "-n", "3").assert_outcomes(passed=18)
    assert set(Counter(suite.loads()).values()) == {1}
    # More workers than conditions find work in other modules of the same one.
    suite.run("claims", "-k", "mistral", "-n", "6").assert_outcomes(passed=9, deselected=0)
    assert len({worker for worker, _ in suite.loads()}) == 6


def test_more_workers_than_models_and_tests_without_a_model(suite):
    suite.claims(
        "test_heads",
        suite.claim(arguments="condition, judge, verdict"),
        suite.claim("H1.2", "test_model", arguments="model, judge, verdict"),
    )
    suite.models("tiny-gpt2")
    suite.accept("-n", "4").assert_outcomes(passed=5)
    assert len(suite.loads()) == 1
    # Other runs keep xdist's own scheduler.
    suite.write("tests/test_other.py", "def test_other(): pass\n")
    result = suite.run("tests", "-n", "2", "-v")
    result.stdout.fnmatch_lines(["*scheduling tests via LoadScheduling*"])
