"""The files of an export, and its figures. Run: pytest tests/report/test_export_folder.py"""

import json
import math
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure

from tests.fake_sessions import HOSTILE, fake_session, one_record
from tests.report.test_page import PANELS
from tinyablation.records.panels import CurvePanel, Series
from tinyablation.records.records import VERDICTS, Record, read_records
from tinyablation.report.export_folder import ExportError, write_exports
from tinyablation.report.figures import COLOURS, MARKERS, _draw_curve, figures
from tinyablation.runs.pictures import DOTS

FOREST = {
    "kind": "forest",
    "title": f"f {HOSTILE}",
    "unit": "$u_{",
    "rows": [{"name": "$a$", "value": 1.0, "low": 0.5, "high": 1.5}],
    "bound": 0.6,
}
GRID = {
    "kind": "grid",
    "title": "g",
    "x": "position",
    "y": "layer",
    "columns": ["last", "$^$"],
    "rows": ["0"],
    "values": [[None, 1.0]],
}


@pytest.fixture(scope="module")
def small():
    """Two tests of a claim under two conditions, one cell of which draws all there is."""
    file = fake_session()
    records = [
        record
        for record in file.records
        if record.claim == "H1.1" and record.condition in ("facts", "logic")
    ][:6]
    first = records[0].model_dump() | {"panels": [*PANELS, FOREST, GRID]}
    return file.model_copy(update={"records": [Record.model_validate(first), *records[1:]]})


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    return write_exports(small, tmp_path_factory.mktemp("export"))


def test_everything_is_there(folder, small):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("records.json", "records.parquet", "figures"),
        *("cells.csv", "cells.md", "cells.tex", "summary.md", "summary.tex"),
        *("prompts.csv", "heatmaps.csv", "curves.csv", "forests.csv", "grids.csv", "tokens.csv"),
    }
    assert read_records(folder).records == small.records


def test_each_figure_is_a_drawing_and_a_picture(folder):
    stems = {path.stem for path in (folder / "figures").iterdir()}
    name = "H1.1_top_suppressor_is_in_layer_zero"
    assert {f"{name}_{kind}" for kind in ("effects", "heads", "curve", "forest", "grid")} <= stems
    for stem in stems:
        svg = (folder / "figures" / f"{stem}.svg").read_text(encoding="utf-8")
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        png = (folder / "figures" / f"{stem}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        width = int.from_bytes(png[16:20], "big")
        assert width >= DOTS * 2.9, "of the size it was made for"
        assert "<script" not in svg and "<img" not in svg


def test_text_in_a_figure_is_text_and_no_formula(folder):
    (path,) = (folder / "figures").glob("*in_layer_zero_effects.svg")
    assert "tiny-gpt2, facts" in ET.tostring(ET.parse(path).getroot(), "unicode")


@pytest.mark.parametrize("interval", [0.1, None])
def test_no_line_leads_to_a_point_of_one_observation(interval):
    counts = [9, 20, 1, 30, 8]
    x, y = [0.1, 0.4, 0.6, 0.8, 0.9], [0.2, 0.3, 1.0, 0.7, 0.8]
    ends = (
        {}
        if interval is None
        else {"low": [each - interval for each in y], "high": [each + interval for each in y]}
    )
    line = Series(name="clean", x=x, y=y, n=counts, **ends)
    axes = Figure().subplots()
    _draw_curve(axes, CurvePanel(title="t", x="forecast", y="share", series=[line]))
    drawn = axes.lines[0].get_xydata().tolist()
    apart = [not math.isnan(place) for place, _ in drawn]
    assert apart == [False, True, True, False, True, False, True, True]
    assert [place for place in drawn if not math.isnan(place[0])] == [
        list(point) for point in zip(x, y, strict=True)
    ]


def test_every_verdict_has_a_marker_and_a_colour_of_its_own():
    for table in (MARKERS, COLOURS):
        assert tuple(table) == VERDICTS and len(set(table.values())) == len(VERDICTS)


def test_the_same_records_give_the_same_figures(small):
    few = small.model_copy(update={"records": small.records[:1]})
    assert dict(figures(few)) == dict(figures(few))


def test_a_claim_of_which_nothing_was_measured_has_no_figure():
    record = one_record(
        verdict="blocked", effect=None, low=None, high=None, heatmap=None, panels=[]
    )
    assert list(figures(fake_session().model_copy(update={"records": [record]}))) == []


def test_a_folder_that_cannot_be_written_is_said(small, tmp_path):
    few = small.model_copy(update={"records": []})
    write_exports(few, tmp_path)
    (tmp_path / "cells.csv").unlink()
    (tmp_path / "cells.csv").mkdir()
    with pytest.raises(ExportError, match=r"cells\.csv: cannot be written"):
        write_exports(few, tmp_path)
    assert json.loads((tmp_path / "records.json").read_text())["records"] == []
