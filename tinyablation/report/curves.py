"""Curves of the report page: line charts as SVG, with error bars, labelled in words.

A line is told by its marker, its dashes and its label, so colour carries nothing alone; the title
and the points stand in the drawing's <title> and <desc>. Colours are CSS classes, as in axes.py.
"""

from collections.abc import Sequence

from markupsafe import Markup

from tinyablation.records.panels import CurvePanel, Series
from tinyablation.report.axes import (
    Axis,
    axis,
    caption,
    drawing,
    marker,
    px,
    tick_text,
    ticks_below,
)
from tinyablation.report.text import number

WIDTH, HEIGHT = 494, 230  # px
LEFT, RIGHT, TOP, BOTTOM = 58, 142, 12, 40  # px round the plot; labels of the lines on the right
LABEL_GAP = 13  # px between two labels, so that they can be read
LONGEST_LABEL = 18  # characters that fit beside the plot, 6.6 px each
MOST_SPOKEN = 60  # points of a line that its description lists; further ones are counted
COLOURS = 6  # CSS classes k0 ... k5; markers and dashes repeat in other periods
# Markers as paths about (0, 0); the first is a circle, drawn as such.
_MARKERS = ("", "M-3.6-3.6h7.2v7.2h-7.2z", "M0-4.6L4.4 3.4H-4.4z", "M0-5L4.4 0 0 5-4.4 0z")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2")


def curve(panel: CurvePanel, identifier: str) -> Markup:
    """One chart as SVG; `identifier` is unique on the page and made of letters that need no escape.

    Lines join the points in the order given, but for those of one observation. Points have a
    tooltip with their figures, and their number of observations beside them, where it is known.
    """
    lines = panel.series
    across = axis((value for line in lines for value in line.x), LEFT, WIDTH - RIGHT)
    up = axis((value for line in lines for value in _reach(line)), HEIGHT - BOTTOM, TOP)
    drawn = "".join(_line(line, index, across, up) for index, line in enumerate(lines))
    content = _axes(panel, across, up) + drawn + _labels(lines, up)
    said = _described(panel)
    return drawing(content, "curve", (WIDTH, HEIGHT), identifier, panel.title, said)


def _reach(line: Series) -> list[float]:
    return [*line.y, *(line.low or ()), *(line.high or ())]


def _axes(panel: CurvePanel, across: Axis, up: Axis) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="ka" d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    if up.low < 0 < up.high:
        parts.append(f'<path class="kz" d="M{LEFT} {px(up.px(0))}H{right}"/>')
    if panel.diagonal and max(across.low, up.low) < min(across.high, up.high):
        ends = (max(across.low, up.low), min(across.high, up.high))
        path = "L".join(f"{px(across.px(end))} {px(up.px(end))}" for end in ends)
        parts.append(f'<path class="kz" d="M{path}"/>')
    parts.append(ticks_below(across, bottom))
    for mark in up.ticks:
        y = up.px(mark)
        parts.append(
            f'<path class="ka" d="M{LEFT - 4} {px(y)}h4"/>'
            f'<text class="ky" x="{LEFT - 7}" y="{px(y + 3.5)}">{tick_text(mark)}</text>'
        )
    middle = (TOP + bottom) // 2
    parts.append(
        f'<text class="kx kl" x="{(LEFT + right) // 2}" y="{HEIGHT - 7}">{caption(panel.x)}</text>'
        f'<text class="kx kl" transform="translate(12 {middle})rotate(-90)">'
        f"{caption(panel.y)}</text>"
    )
    return "".join(parts)


def _line(line: Series, index: int, across: Axis, up: Axis) -> str:
    places = [(across.px(x), up.px(y)) for x, y in zip(line.x, line.y, strict=True)]
    runs = [[places[point] for point in run] for run in line.joined()]
    path = "".join("M" + "L".join(f"{px(x)} {px(y)}" for x, y in run) for run in runs)
    dashes = _DASHES[index % len(_DASHES)]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    parts = [f'<g class="k{index % COLOURS}"><path class="kp"{dashed} d="{path}"/>']
    for point, (x, y) in enumerate(places):
        parts.append(f"<g><title>{caption(line.name)}: {_said(line, point)}</title>")
        if line.low is not None and line.high is not None:
            low, high = px(up.px(line.low[point])), px(up.px(line.high[point]))
            parts.append(f'<path class="ke" d="M{px(x - 3)} {low}h6m-3 0V{high}m-3 0h6"/>')
        parts.append(_marker(index, x, y))
        if line.n is not None:
            above = y > TOP + 8 and (index % 2 == 0 or y > HEIGHT - BOTTOM - 12)
            beside = y - 7 if above else y + 16
            parts.append(f'<text class="kx kc" x="{px(x)}" y="{px(beside)}">{line.n[point]}</text>')
        parts.append("</g>")
    return "".join(parts) + "</g>"


def _marker(index: int, x: float, y: float) -> str:
    return marker("km", _MARKERS[index % len(_MARKERS)], x, y)


def _labels(lines: Sequence[Series], up: Axis) -> str:
    """The name of each line beside its last point, moved so that none covers another."""
    order = sorted(range(len(lines)), key=lambda index: (up.px(lines[index].y[-1]), index))
    heights: list[float] = []
    for index in order:
        wanted = up.px(lines[index].y[-1])
        heights.append(max(wanted, heights[-1] + LABEL_GAP if heights else wanted))
    beyond = heights[-1] - (HEIGHT - BOTTOM)
    limit: float = HEIGHT - BOTTOM + LABEL_GAP
    for place in reversed(range(len(heights))):  # push back up what ran out below
        if beyond > 0:
            heights[place] = min(heights[place], limit - LABEL_GAP)
            limit = heights[place]
    x = WIDTH - RIGHT + 14
    parts = []
    for index, y in zip(order, heights, strict=True):
        name = caption(lines[index].name, LONGEST_LABEL)
        parts.append(
            f'<g class="k{index % COLOURS}">{_marker(index, x, y)}'
            f'<text class="kn" x="{x + 8}" y="{px(y + 3.5)}">{name}</text></g>'
        )
    return "".join(parts)


def _said(line: Series, point: int) -> str:
    interval = ""
    if line.low is not None and line.high is not None:
        interval = f" [{number(line.low[point])}, {number(line.high[point])}]"
    count = "" if line.n is None else f" (n = {line.n[point]})"
    return f"{tick_text(line.x[point])}: {number(line.y[point])}{interval}{count}"


def _described(panel: CurvePanel) -> str:
    said = [f"{panel.y} against {panel.x}."]
    for line in panel.series:
        points = "; ".join(_said(line, point) for point in range(len(line.x))[:MOST_SPOKEN])
        more = len(line.x) - MOST_SPOKEN
        said.append(f"{line.name}: {points}{f'; {more} more' if more > 0 else ''}.")
    return " ".join(said)
