"""Plots of a summary: bars for each workload, and the scaling plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")  # Files only: no window system is asked for.

from matplotlib import pyplot as plt

from reporting.curves import draw_plot
from reporting.scaling_points import PLOTS
from reporting.style import COLOURS, FAINT, INK, STYLE, caption, measured, tick_text
from reporting.tables import STATES, TIMES, ratio_text, time_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reporting.summary import Entry, Section, Spread

LOG_FROM_RATIO = 30  # Bars that differ more than this are drawn on a logarithmic axis.
DOTS_PER_INCH = 160


def save_plots(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write every plot as PNG and SVG into `folder`; return the paths."""
    paths: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in draw_plots(sections):
        paths += [folder / f"{name}.png", folder / f"{name}.svg"]
        figure.savefig(paths[-2], dpi=DOTS_PER_INCH, bbox_inches="tight")
        figure.savefig(paths[-1], bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    return paths


def draw_plots(
    sections: Sequence[Section], only: Collection[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """Yield each plot with its name: that of a workload, or of a scaling plot."""
    with mpl.rc_context(STYLE):
        for workload in dict.fromkeys(section.workload for section in sections):
            panels = [section for section in sections if section.workload == workload]
            drawn = [panel for panel in panels if measured(panel)]
            if drawn and (only is None or workload in only):
                yield workload, _bars(drawn)
        for plot in PLOTS:
            if only is not None and plot.name not in only:
                continue
            if figure := draw_plot(plot, sections):
                yield plot.name, figure


def _bars(panels: Sequence[Section]) -> Figure:
    """One panel for each cache state, one bar for each competitor."""
    rows = max(len(measured(panel)) for panel in panels)
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(5.2 * len(panels) + 1.6, 0.52 * rows + 1.1),
        squeeze=False,
        layout="constrained",
    )
    for panel, axis in zip(panels, axes[0], strict=True):
        _draw_bars(axis, panel)
    if rows > 1:
        caption(figure, f"{TIMES}: time divided by windlass's; whiskers: fastest to slowest run")
    figure.suptitle(panels[0].title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def _draw_bars(axis: Axes, section: Section) -> None:
    bars = measured(section)
    farthest = max(seconds.highest for _, seconds in bars)
    nearest = min(seconds.lowest for _, seconds in bars)
    if nearest > 0 and farthest / nearest > LOG_FROM_RATIO:
        axis.set_xscale("log")
        axis.set_xlim(nearest / 3, farthest * (farthest / nearest) ** 0.5)
    else:
        axis.set_xlim(min(0.0, nearest), farthest * 1.45)
    for place, (entry, seconds) in enumerate(bars):
        _draw_bar(axis, place, entry, seconds, ours=entry.competitor == section.baseline)
    axis.set_yticks(range(len(bars)), [entry.title for entry, _ in bars])
    axis.invert_yaxis()
    axis.set_title(STATES[section.cache], loc="left", fontsize=10)
    axis.minorticks_off()
    axis.xaxis.set_major_formatter(lambda seconds, _: tick_text(seconds))
    axis.grid(visible=True, axis="x", color=FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)


def _draw_bar(axis: Axes, place: int, entry: Entry, seconds: Spread, *, ours: bool) -> None:
    low, middle, high = seconds.lowest, seconds.median, seconds.highest
    colour = COLOURS.get(entry.competitor, INK)
    axis.barh(place, middle, height=0.62, color=colour)
    axis.plot([low, high], [place, place], color=INK, linewidth=1.2, solid_capstyle="butt")
    axis.plot([low, high], [place, place], "|", color=INK, markersize=7, markeredgewidth=1.2)
    label = time_text(middle)
    if entry.ratio and not ours:
        label += f"   {ratio_text(entry.ratio.median)}"
    axis.annotate(
        label,
        (high, place),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold" if ours else "normal",
    )
