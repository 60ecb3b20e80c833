"""Draws the scaling plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")  # Files only: no window system is asked for.

from matplotlib import pyplot as plt

from reporting.scaling_points import curves_of_plot
from reporting.style import COLOURS, FAINT, INK, OURS, caption, tick_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reporting.scaling_points import Plot, Point
    from reporting.summary import Section


def draw_plot(plot: Plot, sections: Sequence[Section]) -> Figure | None:
    """Draw one figure; None where nothing was measured at more than one amount."""
    drawn = curves_of_plot(sections, plot)
    if not drawn:
        return None
    figure, axes = plt.subplots(
        1,
        len(drawn),
        figsize=(5 * len(drawn) + 1, 4.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for (panel, found), axis in zip(drawn.items(), axes[0], strict=True):
        _draw_panel(axis, found, plot)
        axis.set_title(panel.title, loc="left", fontsize=10)
    dotted = f"dotted: growth in proportion to the {plot.amount}; " if plot.growing else ""
    caption(figure, f"{dotted}whiskers: fastest to slowest run")
    figure.suptitle(plot.title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def _draw_panel(axis: Axes, curves: dict[str, list[Point]], plot: Plot) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    for competitor, points in curves.items():
        _draw_curve(axis, points, COLOURS.get(competitor, INK))
        if plot.growing:
            _draw_slope(axis, points)
    ticks = sorted({point.amount for points in curves.values() for point in points})
    axis.set_xticks(ticks, [f"{count:,}" for count in ticks], rotation=30)
    axis.minorticks_off()
    axis.set_xlabel(plot.amount)
    axis.yaxis.set_major_formatter(lambda seconds, _: tick_text(seconds))
    axis.tick_params(labelleft=True)
    axis.grid(visible=True, which="major", color=FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.legend(frameon=False)


def _draw_curve(axis: Axes, points: Sequence[Point], colour: str) -> None:
    middles = [point.seconds.median for point in points]
    below = [point.seconds.median - point.seconds.lowest for point in points]
    above = [point.seconds.highest - point.seconds.median for point in points]
    axis.errorbar(
        [point.amount for point in points],
        middles,
        yerr=[below, above],
        color=colour,
        marker="o",
        markersize=5,
        linewidth=2.2 if colour == OURS else 1.5,
        capsize=3,
        label=points[-1].title,
    )


def _draw_slope(axis: Axes, points: Sequence[Point]) -> None:
    """A dotted line that grows with n, from the curve's first point: steeper is worse."""
    ends = [points[0].amount, points[-1].amount]
    first = points[0].seconds.median
    axis.plot(ends, [first, first * ends[1] / ends[0]], ":", color=INK, linewidth=0.9, alpha=0.5)
