"""Heatmaps as tables: shades, names and figures. Run: pytest tests/report/test_heat_tables.py"""

import pytest

from tinyablation.records.panels import GridPanel
from tinyablation.records.records import Heatmap
from tinyablation.report.heat_tables import HEAT_STEPS, grid_table, heat_table


def heat(values, subject=None):
    return heat_table(Heatmap(values=values, title="t"), subject)


def test_the_largest_figure_has_the_full_shade_either_way():
    table = heat([[1.0, -1.0], [0.0, 0.5]])
    shades = [[cell.shade for cell in row] for row in table.rows]
    assert shades == [[f"p{HEAT_STEPS}", f"n{HEAT_STEPS}"], ["", "p4"]]
    assert table.extent == 1.0
    assert heat([[0.0]]).rows[0][0].shade == ""


@pytest.mark.parametrize("subject", ["0:1 1:0", "0:1, 1:0", "0:1+1:0"])
def test_every_head_of_the_subject_is_outlined(subject):
    table = heat([[0.0, 1.0], [1.0, 0.0]], subject)
    assert [["subject" in cell.shade for cell in row] for row in table.rows] == [
        [False, True],
        [True, False],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, ".50"),
        (-0.25, "\N{MINUS SIGN}.25"),
        (10.0, "10.0"),
        (20.5, "20.5"),
        (1.0, "1.00"),
        (0.001, "0"),
    ],
)
def test_figures_fit_a_cell_and_are_not_cut_into_others(value, text):
    assert heat([[value]]).rows[0][0].text == text


def test_a_grid_has_its_own_names_and_holes():
    panel = GridPanel(
        title="t",
        x="position",
        y="layer",
        columns=["last", "all"],
        rows=["3"],
        values=[[None, 2.0]],
    )
    table = grid_table(panel)
    assert (table.x, table.y, table.columns, table.names) == (
        "position",
        "layer",
        ["last", "all"],
        ["3"],
    )
    assert [(c.text, c.tooltip) for c in table.rows[0]] == [
        ("", "3, last not measured"),
        ("2.00", "3, all +2.000"),
    ]


def test_a_grid_of_pairs_names_heads_as_the_page_does():
    labels = ["0:2", "11:7"]
    values = [[None, 0.5], [0.5, None]]
    given = {"title": "t", "x": "head", "y": "head", "columns": labels, "rows": labels}
    table = grid_table(GridPanel(**given, values=values))
    assert table.columns == table.names == ["L0H2", "L11H7"]
    assert table.rows[0][1].tooltip == "L0H2, L11H7 +0.500"
    # A token is no head.
    tokens = grid_table(GridPanel(**(given | {"x": "token"}), values=values))
    assert tokens.columns == labels and tokens.names == table.names


def test_wide_maps_show_shades_only():
    assert heat([[0.1] * 16]).printed and not heat([[0.1] * 17]).printed


def test_a_heatmap_of_changes_says_which_way_is_which():
    table = heat_table(Heatmap(values=[[1.0]], title="mean change of LD, logits"), None)
    assert (table.lowers, table.raises) == ("lowers LD", "raises LD")
    assert heat([[1.0]]).raises == ""
