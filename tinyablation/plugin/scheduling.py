"""Conditions of models to workers: a scheduler for `pytest claims -n N`.

The unit of work is a model under one condition; what spans conditions is a unit that comes last. An
embedded model stays with its worker, which goes on to its twin (each measures patches in the other)
and then to a model that nobody has begun. Only a worker that would idle helps out with a model of
another's: so each worker loads an embedded model at most once, whatever N is, and no worker waits
at the end for longer than a condition takes. Any other model is large, and there are few of them in
a session: workers take its conditions, the longest first, and measure it at the same time, off one
copy of the weights on the CPU, or in turns on a GPU (tinyablation/models/device_queue.py). With
more workers than units these are split by module: workers that are at one condition share the
shards of its runs (tinyablation/runs/filling.py). `--dist loadgroup` should do this and silently
does not with this pytest (pytest-xdist #1386), hence a scheduler of our own. `LoadScopeScheduling`
is private API of pytest-xdist: pytest and xdist are pinned together, and tests count the loads.
`--dist` is ignored for claims; every other run keeps xdist's own choice.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tinyablation.plugin.conditions import conditions
from tinyablation.plugin.options import is_claims_run
from tinyablation.plugin.session_models import model_in_nodeid, registry, session_models
from tinyablation.records.records import ALL_CONDITIONS, CONDITIONS

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


class Unit(NamedTuple):
    """What one worker does in one go: the tests of a model under a condition, of one module or all.

    model: "" for tests without one, which stay together by module; condition: "all" where a test
    spans them; module: "" for all modules.
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
) -> Unit:
    """The unit of a test. split: models whose units are of one module each; conditions: those of
    the session."""
    module = nodeid.split("::", 1)[0]
    model = model_in_nodeid(nodeid, models)
    if model is None:
        return Unit("", "", module)
    parameters = nodeid.rsplit("::", 1)[-1].partition("[")[2].removesuffix("]")
    condition = parameters.removeprefix(model).removeprefix("-").split("-", 1)[0]
    found = condition if condition in conditions else ALL_CONDITIONS
    return Unit(model, found, module if model in split else "")


def choose(
    waiting: Sequence[Unit],
    own: str,
    others: Container[str],
    embedded: Container[str],
    twins: Mapping[str, str],
) -> Unit:
    """The next unit for a worker, of those waiting, in order.

    own: the model it was at, "" for none; others: the models that other workers are at.
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
    # What waits, and is nobody's, was not begun: a worker leaves a model when nothing of it waits.
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
    # Its worker comes to the first ones next; what spans conditions waits for them all.
    single = [unit for unit in longest if unit.condition != ALL_CONDITIONS]
    return (single or longest)[-1]


def _longest(waiting: Sequence[Unit], first: Unit) -> Unit:
    """Of the first unit's model, the first unit of the last condition.

    Conditions are ordered from facts, whose prompts are the shortest, to logic: what takes longest
    begins first, so that no worker is left with it at the end. What spans conditions reads their
    runs, and what has no model needs none: they keep their places.
    """
    if first.condition in ("", ALL_CONDITIONS):
        return first
    own = [u for u in waiting if u.model == first.model and u.condition != ALL_CONDITIONS]
    return next(unit for unit in own if unit.condition == own[-1].condition)


def _split(
    models: Iterable[str], workers: int, conditions: Sequence[str] = CONDITIONS
) -> frozenset[str]:
    """The models whose units are split by module: all, where workers would find none."""
    return frozenset(models) if workers > len(conditions) + 1 else frozenset()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling | None":
    if not is_claims_run(config):
        return None
    return _scheduler_class()(config, log)


def _scheduler_class() -> "type[LoadScopeScheduling]":
    # Made in a function: xdist is imported only by runs that distribute.
    from xdist.scheduler import LoadScopeScheduling

    class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        """Gives each worker the unit that `choose` chooses; a crashed test is not tried again."""

        def __init__(self, config: pytest.Config, log: Any) -> None:
            super().__init__(config, log)
            entries = registry(config)
            self.models = entries.ids
            self.embedded = session_models(config).listed.local_ids
            self.twins = {name: entry.twin for name, entry in entries.items() if entry.twin}
            others = [name for name in self.models if name not in self.embedded]
            self.conditions = conditions(config)
            self.split = _split(others, self.numnodes, self.conditions)
            self.units: dict[str, Unit] = {}
            self.at: dict[Any, str] = {}  # by worker, the model of its last unit

        def _split_scope(self, nodeid: str) -> str:
            unit = unit_of(nodeid, self.models, self.split, self.conditions)
            self.units[unit.scope] = unit
            return unit.scope

        def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
            super().add_node_collection(node, collection)
            if node not in self.registered_collections:
                raise RuntimeError(
                    f"worker {node.gateway.id}, which replaces one that was lost, collected other"
                    " tests than the session began with, so that it cannot go on with them. What"
                    " was judged is kept. Run it again when claims, models and options stay as"
                    " they are."
                )

        def _reschedule(self, node: Any) -> None:
            # One that replaces a lost worker may still collect: the parent would give it work that
            # it cannot name yet. `schedule` comes back to it.
            if node in self.registered_collections:
                super()._reschedule(node)

        def _assign_work_unit(self, node: Any) -> None:
            waiting = [self.units[scope] for scope in self.workqueue]
            others = {model for other, model in self.at.items() if other is not node}
            unit = choose(waiting, self.at.get(node, ""), others, self.embedded, self.twins)
            self.workqueue.move_to_end(unit.scope, last=False)  # the parent takes the first
            self.at[node] = unit.model
            super()._assign_work_unit(node)

        def remove_node(self, node: Any) -> str | None:
            # The parent puts the crashed test back in the queue, where it would take down the
            # next worker as well, and report twice; its crash is its report.
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
