"""Whether plain hooks agree with the engine on a sample of a run: the key "backends".

The engine's side is the run's own table, so the check covers the figures that claims rest on.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinyablation.engine.tables import BASELINE
from tinyablation.interventions.interventions import Intervention
from tinyablation.measurement.precision import TOLERANCES
from tinyablation.measurement.protocols import PUBLISHED
from tinyablation.records.plain import plain
from tinyablation.records.trust import BackendCheck

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

    from tinyablation.engine.hook_backends import Backend, Case
    from tinyablation.measurement.shard_computation import Measurement

# Examples, interventions: 10 passes plus those of donors, some .1 s with both backends.
SAMPLE = (2, 4)
# How far a change of LD may differ from the engine's, by the run's dtype: as a share of the largest
# LD of the sample, or of 1 if that is larger. The largest difference on the CPU (four embedded
# families, every kind of intervention, LD up to 16): 5e-6 logits in float32, .012 in float16, .088
# in bfloat16, that is 8e-7, 8e-4 and 1e-2 of the largest. Both sides have the same dtype and differ
# only in the order of sums; deeper models round more often, hence ten times that, and a hundred
# times in float32, where accelerators sum in other orders. An effect counts from 5 % of LD: in
# bfloat16 the check cannot find faults smaller than two such effects.
AGREEMENT = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


def agreement(
    measured: "Measurement", interventions: Sequence[Intervention], table: "pandas.DataFrame"
) -> dict[str, Any]:
    """The keys "backends" and "backends_not_made" of a run's verify.json.

    interventions: all of the run; table: its rows. backends: one trust.BackendCheck each, as plain
    values; backends_not_made: backend -> why it was not run, or why its result is uninformative.
    """
    from tinyablation.engine.hook_backends import BACKENDS
    from tinyablation.statistics.intervals import generator

    usable = [each for each in interventions if _is_checkable(each, measured.has_spans)]
    rows = measured.comparable_rows()
    why = ""
    if measured.protocol == PUBLISHED:
        why = "the published protocol repeats a study's way of measuring, which no backend judges"
    elif not interventions:
        why = "the run changes nothing: it is of the unhooked model"
    elif not usable or not rows:
        why = "answers of several tokens: no example or intervention has a first token to compare"
    if why:
        return {"backends": [], "backends_not_made": dict.fromkeys(BACKENDS, why)}
    rng = generator(measured.seed, f"backends {measured.run}")
    n_examples, n_interventions = SAMPLE
    size = min(n_examples, len(rows))
    chosen = sorted(int(row) for row in rng.choice(rows, size, replace=False))
    wide = table.pivot(index="intervention", columns="example", values="logit_diff")
    engine = wide[chosen] - wide.loc[BASELINE, chosen]
    sample = choose(usable, engine.abs().mean(axis=1).to_dict(), n_interventions, rng)
    deltas = engine.loc[[each.label for each in sample]].to_numpy(dtype=float)
    cases = measured.cases(chosen, {each.source.donor for each in sample})
    return _compare(measured, dict(zip(chosen, cases, strict=True)), sample, deltas)


def choose(
    interventions: Sequence[Intervention],
    effects: Mapping[str, float],
    n: int,
    rng: "np.random.Generator",
) -> list[Intervention]:
    """At most n interventions: the largest effect, one of each other kind, and others at random.

    effects: label -> the engine's mean |Delta LD|. The largest is what claims rest on; the random
    ones can reveal an effect that the engine misses. Kinds are those of the tables' method column.
    """
    first = max(interventions, key=lambda each: effects[each.label])
    order = [interventions[int(index)] for index in rng.permutation(len(interventions))]
    kinds = {first.columns.method}
    ahead = []
    for each in order:
        if each.columns.method not in kinds:
            kinds.add(each.columns.method)
            ahead.append(each)
    return list(dict.fromkeys([first, *ahead, *order]))[:n]


def _compare(
    measured: "Measurement",
    cases: "Mapping[int, Case]",
    sample: Sequence[Intervention],
    deltas: "NDArray[np.float64]",
) -> dict[str, Any]:
    """deltas: [interventions, examples], the engine's."""
    from tinyablation.engine.hook_backends import BACKENDS, BackendError
    from tinyablation.engine.memory import ran_out

    checks: list[BackendCheck] = []
    not_made: dict[str, str] = {}
    for name in BACKENDS:
        try:
            backend, allowed = backend_of(measured, name)
            check = _ask(measured, backend, cases, sample, deltas, allowed)
        except BackendError as error:
            not_made[name] = str(error)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            not_made[name] = f"{measured.held.device} ran out of memory"
        else:
            if isinstance(check, str):
                not_made[name] = check
            else:
                checks.append(check)
    return {"backends": plain(checks), "backends_not_made": not_made}


def backend_of(measured: "Measurement", name: str) -> "tuple[Backend, float]":
    """The backend of that name for the run's model, and its tolerance as a share of LD.

    A model that is spread over several devices cannot be put into a bridge. The bridge is then one
    on the CPU in float32, with the tolerance of the verified sample.
    """
    from tinyablation.engine.hook_backends import PLAIN, is_spread

    held = measured.held
    if name == PLAIN:
        return held.plain_hooks, AGREEMENT[held.dtype]
    if is_spread(held.model) and not held.is_trusted:
        return held.reference.bridge_hooks, TOLERANCES[held.dtype]
    return held.bridge_hooks, AGREEMENT[held.dtype]


def _ask(
    measured: "Measurement",
    backend: "Backend",
    cases: "Mapping[int, Case]",
    sample: Sequence[Intervention],
    deltas: "NDArray[np.float64]",
    share: float,
) -> BackendCheck | str:
    """The check of one backend, or a text if its agreement would be uninformative."""
    import numpy as np

    from tinyablation.engine.hook_changes import Changes

    changes = Changes(
        backend,
        reference=[prompt.ids for prompt in measured.reference],
        bos_id=measured.held.model.bos_id,
        directions=measured.directions,
        seed=measured.seed,
    )
    clean = np.array([changes.clean(case) for case in cases.values()])
    # [interventions, examples]
    after = np.array([[changes.changed(case, each) for case in cases.values()] for each in sample])
    said = after - clean
    allowed = share * max(1.0, float(np.abs([clean, *after]).max()))
    off = np.abs(said - deltas)
    worst, column = np.unravel_index(off.argmax(), off.shape)
    largest = float(max(np.abs(said).max(), np.abs(deltas).max()))
    if off.max() <= allowed and largest <= allowed:
        return (
            f"no change of the sample is larger than {allowed:.2g} logits, which rounding may make "
            f"(the largest is {largest:.2g}): an agreement would say nothing"
        )
    return BackendCheck(
        backend=backend.name,
        run=measured.run,
        n_examples=len(cases),
        n_interventions=len(sample),
        largest=float(off.max()),
        tolerance=allowed,
        where=(
            f"example {list(cases)[column]} under {sample[worst].label}: the engine says Delta = "
            f"{deltas[worst, column]:.4g} logits, and plain {backend.name} say "
            f"{said[worst, column]:.4g}"
        ),
    )


def _is_checkable(intervention: Intervention, spans: bool) -> bool:
    # A span's donor needs a long enough answer, which its first token alone does not show.
    return not (spans and intervention.source.donor == "resample")
