"""Pictures by matplotlib, without its global state: the same figures give the same bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DOTS = 110  # of a PNG, per inch
COLOURS = "RdBu_r"  # red above zero, blue below, white between


def blank(width: float, height: float, title: str, fontsize: float) -> Figure:
    """An empty figure, `width` x `height` inches; a "$" in its title begins no formula."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained")
    figure.suptitle(title, fontsize=fontsize, parse_math=False)
    return figure


def png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # matplotlib's own version in the file would change its bytes without changing the picture.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def full_shade(values: Iterable[np.ndarray[Any, Any]]) -> float:
    """The largest |value| of all, so that maps beside each other share a scale; NaN is no value."""
    import numpy as np

    known = [np.abs(each[~np.isnan(each)]) for each in values]
    largest = max((float(each.max()) for each in known if each.size), default=0.0)
    return largest or 1.0  # all zero: any scale shows it white


def heatmap(axes: Axes, values: np.ndarray[Any, Any], limit: float) -> AxesImage:
    """A map of `values`, rows down, on a scale from -limit to limit; NaN stays empty."""
    return axes.imshow(values, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
