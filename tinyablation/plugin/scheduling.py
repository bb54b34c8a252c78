"""A scheduler for `pytest claims -n N` that assigns models and conditions to workers.

The unit of work is a model under one condition; tests that span conditions form a unit that comes
last. An embedded model stays with its worker, which continues with its twin (each measures patches
in the other) and then with a model that no worker has begun. Only an idle worker helps with the
model of another one. So each worker loads an embedded model at most once, for any N, and at the end
no worker waits longer than one condition takes. Other models are large, and a session has few of
them: workers take their conditions, the longest first, and measure in parallel, from one copy of
the weights on the CPU, or in turns on a GPU (tinyablation/models/device_queue.py). Their tests that
span conditions are split by module: two thirds of the literature's do, and measure much. With more
workers than conditions, and one for those, all are: workers on the same condition share the shards
of its runs (tinyablation/runs/filling.py). `--dist loadgroup` should do this but silently does not
with this pytest (pytest-xdist #1386), hence our own scheduler. `LoadScopeScheduling` is private API
of pytest-xdist: pytest and xdist are pinned together, and tests count the loads. `--dist` is
ignored for claims; every other run uses xdist's own scheduling.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tinyablation.plugin.conditions import conditions
from tinyablation.plugin.options import is_claims_run, is_guest
from tinyablation.plugin.session_models import model_in_nodeid, registry, session_models
from tinyablation.records.records import ALL_CONDITIONS, CONDITIONS

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


class Unit(NamedTuple):
    """The tests a worker gets at once: those of a model under a condition, of one module or all.

    model: "" for tests without one, which stay together by module; condition: "all" for tests that
    span conditions; module: "" for all modules.
    """

    model: str
    condition: str
    module: str = ""

    @property
    def scope(self) -> str:
        """Its name among all units."""
        return ":".join(self)


def unit_of(
    nodeid: str,
    models: Sequence[str],
    split: Container[str] = (),
    conditions: Container[str] = CONDITIONS,
    *,
    pretrained: Container[str] = (),
) -> Unit:
    """The unit of a test.

    split: models whose units are split by module; conditions: those of the session. pretrained:
    models whose tests that span conditions are split by module in any case.
    """
    module = nodeid.split("::", 1)[0]
    model = model_in_nodeid(nodeid, models)
    if model is None:
        return Unit("", "", module)
    parameters = nodeid.rsplit("::", 1)[-1].partition("[")[2].removesuffix("]")
    condition = parameters.removeprefix(model).removeprefix("-").split("-", 1)[0]
    found = condition if condition in conditions else ALL_CONDITIONS
    apart = model in split or (found == ALL_CONDITIONS and model in pretrained)
    return Unit(model, found, module if apart else "")


def choose(
    waiting: Sequence[Unit],
    own: str,
    others: Container[str],
    embedded: Container[str],
    twins: Mapping[str, str],
) -> Unit:
    """The next unit for a worker, from the waiting ones, in order.

    own: the worker's last model, "" for none; others: the models of other workers.
    """
    first = waiting[0]
    if first.model not in embedded:
        return _longest(waiting, first)
    by_model: dict[str, list[Unit]] = {}
    for unit in waiting:
        if unit.model in embedded:
            by_model.setdefault(unit.model, []).append(unit)
    if own in by_model:
        return by_model[own][0]
    # A waiting model without a worker was not begun: a worker leaves a model only when it is done.
    new = [model for model in by_model if model not in others]
    twin = twins.get(own, "")
    if twin in new:
        return by_model[twin][0]
    apart = [model for model in new if twins.get(model, "") not in others]
    for model in (*apart, *new):
        return by_model[model][0]
    for unit in waiting:
        if unit.model not in embedded:
            return unit
    longest = max(by_model.values(), key=len)
    # Its own worker takes the first ones next; units that span conditions wait for all of them.
    single = [unit for unit in longest if unit.condition != ALL_CONDITIONS]
    return (single or longest)[-1]


def _longest(waiting: Sequence[Unit], first: Unit) -> Unit:
    """The first unit of the last condition of the first unit's model.

    Conditions are ordered from facts, with the shortest prompts, to logic: the longest starts
    first, so that no worker is left with it at the end. Units that span conditions read their runs,
    and units without a model need none: they keep their places.
    """
    if first.condition in ("", ALL_CONDITIONS):
        return first
    own = [u for u in waiting if u.model == first.model and u.condition != ALL_CONDITIONS]
    return next(unit for unit in own if unit.condition == own[-1].condition)


def _split(
    models: Iterable[str], workers: int, conditions: Sequence[str] = CONDITIONS
) -> frozenset[str]:
    """The models whose units are split by module: all, if there are more workers than units."""
    return frozenset(models) if workers > len(conditions) + 1 else frozenset()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling | None":
    if not is_claims_run(config) or is_guest(config):  # whose project distributes as it likes
        return None
    return _scheduler_class()(config, log)


def _scheduler_class() -> "type[LoadScopeScheduling]":
    # Made in a function: xdist is imported only by runs that distribute.
    from xdist.scheduler import LoadScopeScheduling

    class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        """Gives each worker the unit that `choose` selects; a crashed test is not retried."""

        def __init__(self, config: pytest.Config, log: Any) -> None:
            super().__init__(config, log)
            entries = registry(config)
            self.models = entries.ids
            self.embedded = session_models(config).listed.local_ids
            self.twins = {name: entry.twin for name, entry in entries.items() if entry.twin}
            self.pretrained = frozenset(set(self.models) - set(self.embedded))
            self.conditions = conditions(config)
            self.split = _split(self.pretrained, self.numnodes, self.conditions)
            self.units: dict[str, Unit] = {}
            self.at: dict[Any, str] = {}  # worker -> the model of its last unit

        def _split_scope(self, nodeid: str) -> str:
            unit = unit_of(
                nodeid, self.models, self.split, self.conditions, pretrained=self.pretrained
            )
            self.units[unit.scope] = unit
            return unit.scope

        def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
            super().add_node_collection(node, collection)
            if node not in self.registered_collections:
                raise RuntimeError(
                    f"worker {node.gateway.id}, which replaces one that was lost, collected other"
                    " tests than the session began with and cannot continue. Verdicts so far are"
                    " kept. Run it again without changing claims, models or options."
                )

        def _reschedule(self, node: Any) -> None:
            # A worker that replaces a lost one may still be collecting and cannot be given work
            # yet; `schedule` will handle it later.
            if node in self.registered_collections:
                super()._reschedule(node)

        def _assign_work_unit(self, node: Any) -> None:
            waiting = [self.units[scope] for scope in self.workqueue]
            others = {model for other, model in self.at.items() if other is not node}
            unit = choose(waiting, self.at.get(node, ""), others, self.embedded, self.twins)
            self.workqueue.move_to_end(unit.scope, last=False)  # the base class takes the first
            self.at[node] = unit.model
            super()._assign_work_unit(node)

        def remove_node(self, node: Any) -> str | None:
            # The base class requeues the crashed test, which would crash the next worker too and
            # report twice; the crash is its report.
            workload = self.assigned_work.pop(node)
            self.at.pop(node, None)
            crashed = None
            for unit in workload.values():
                for nodeid, completed in unit.items():
                    if not completed and crashed is None:
                        crashed = nodeid
                        unit[nodeid] = True
            for scope, unit in workload.items():
                if not all(unit.values()):
                    self.workqueue[scope] = unit
            for other in self.assigned_work:
                self._reschedule(other)
            return crashed

    return ModelScheduling
