"""No figure depends on the order of a table's rows or columns.

Run: pytest tests/metamorphic/test_tables_in_any_order.py
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from tests.metamorphic import table_laws
from tests.metamorphic.searching import rounds
from tests.metamorphic.table_laws import ORDERS, Order
from tests.synthetic_effects import LEADER, make_coalitions, make_patches, make_paths
from tests.synthetic_sweeps import make_sweep


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    recoveries = {(layer, "last"): 0.3 * layer for layer in range(4)}
    return {
        "sweep": make_sweep({(0, 0): 1.0, (1, 2): -0.5}, n_clusters=8, per_cluster=2),
        "coalitions": make_coalitions({LEADER: 1.0}),
        "paths": make_paths(1.0, {1: 0.5, 4: 0.3}),
        "patches": make_patches(recoveries, {**recoveries, (2, "last"): 0.9}),
    }


READERS = {
    "sweep": table_laws.sweep_figures,
    "coalitions": table_laws.coalition_figures,
    "paths": table_laws.path_figures,
}


@pytest.mark.parametrize("kind", READERS)
@rounds(8)
@given(order=ORDERS)
def test_statistics_do_not_depend_on_order(kind: str, made: Any, order: Order) -> None:
    one = replace(made[kind], _cache={})
    two = replace(one, table=order.of(one.table), _cache={})
    table_laws.figures_do_not_depend_on_order(READERS[kind], one, two)


@rounds(8)
@given(order=ORDERS, other=ORDERS)
def test_patches_do_not_depend_on_the_orders_of_their_tables(
    made: Any, order: Order, other: Order
) -> None:
    one = replace(made["patches"], _cache={})
    denoising, noising = (
        replace(effects, table=of.of(effects.table), _cache={})
        for effects, of in ((one.denoising, order), (one.noising, other))
    )
    two = replace(one, denoising=denoising, noising=noising, _cache={})
    table_laws.figures_do_not_depend_on_order(table_laws.patch_figures, one, two)


@rounds(8)
@given(order=ORDERS)
def test_means_do_not_depend_on_order(made: Any, order: Order) -> None:
    table_laws.means_do_not_depend_on_order(made["sweep"].table, order)
