"""Axes of the report page's drawings: where a value lies, round ticks, and the text beside them.

Colours are CSS classes, so that one page serves light, dark and print.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from markupsafe import Markup, escape

from tinyablation.report.markdown import one_line


class Axis(NamedTuple):
    """A linear axis from `low` to `high` in data units, drawn from `start` to `end` in px."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def px(self, value: float) -> float:
        """Where a value lies. Halves first: the difference of two large floats is infinite."""
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return round(self.start + share * (self.end - self.start), 1)


def axis(values: Iterable[float], start: float, end: float) -> Axis:
    """The axis that shows all `values`, with round ticks; with whole ones if all are integers."""
    shown = list(values)
    low, high = min(shown), max(shown)
    if high / 2 - low / 2 == 0:  # one value, or two too small to be told apart
        pad = abs(low) / 2 or 1.0
        low, high = (low - pad, high) if high > 0 else (low, high + pad)
    marks = ticks(low, high)
    if all(float(value).is_integer() for value in shown):
        marks = tuple(mark for mark in marks if float(mark).is_integer())
    return Axis(low, high, start, end, marks)


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Three to six round values from `low` to `high`; low < high.

    Differences of the smallest and largest floats have no round values: then the two ends.
    """
    if not math.isfinite(high - low):
        return (low, high)
    magnitude = 10.0 ** math.floor(math.log10((high - low) / 4)) if (high - low) / 4 else 0.0
    step = next(
        (f * magnitude for f in (1, 2, 5) if f * magnitude * 4 >= (high - low)), 10 * magnitude
    )
    if step <= 0:
        return (low, high)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def tick_text(value: float) -> str:
    """A value at an axis."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def px(value: float) -> str:
    """A coordinate as SVG has it, to a tenth of a px."""
    return f"{round(value, 1):g}"


def caption(text: str, most: int | None = None) -> Markup:
    """One line, its hidden characters named; cut to fit."""
    shown = one_line(text)
    return escape(shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…")


def ticks_below(across: Axis, bottom: float) -> str:
    """The ticks of a horizontal axis at `bottom` px, labelled below it."""
    return "".join(
        f'<path class="ka" d="M{px(across.px(mark))} {px(bottom)}v4"/>'
        f'<text class="kx" x="{px(across.px(mark))}" y="{px(bottom + 15)}">{tick_text(mark)}</text>'
        for mark in across.ticks
    )


def marker(kind: str, shape: str, x: float, y: float) -> str:
    """A marker of CSS class `kind`; shape: a path about (0, 0), or "" for a circle."""
    if not shape:
        return f'<circle class="{kind}" cx="{px(x)}" cy="{px(y)}" r="3.6"/>'
    return f'<path class="{kind}" transform="translate({px(x)} {px(y)})" d="{shape}"/>'


def drawing(
    content: str,
    kind: str,
    size: tuple[float, float],
    identifier: str,
    title: str,
    said: str,
    *,
    scrolled: bool = False,
) -> Markup:
    """The <svg> of CSS class `kind` round `content`; said: all that it shows, in words.

    identifier: unique on the page, of letters that need no escape. size: width and height, px.
    scrolled: where there is less room, it keeps its width.
    """
    width, height = map(px, size)
    frame = f'width="{width}" ' if scrolled else ""
    frame += f'viewBox="0 0 {width} {height}"'
    return Markup(
        f'<svg class="{kind}" role="img" {frame} '
        f'aria-labelledby="{identifier}-t {identifier}-d">'
        f'<title id="{identifier}-t">{caption(title)}</title>'
        f'<desc id="{identifier}-d">{caption(said)}</desc>{content}</svg>'
    )
