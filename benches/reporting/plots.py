"""Plots of a summary: bars for each workload, and time against the number of tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # Files only: no window system is asked for.

from matplotlib import pyplot as plt

from reporting.tables import STATES, TIMES, ratio_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reporting.summary import Entry, Section, Spread

OURS = "#0b6e75"
COLOURS = {
    "windlass": OURS,
    "windlass-mapped": OURS,
    "windlass-owned": "#4fa3a8",
    "transformers-rule": "#d98032",
    "hub": "#8d6cab",
    "torch-load": "#5b7fb5",
    "torch-save": "#5b7fb5",
    "safetensors": "#c25b6a",
    "memory-copy": "#a9b1b5",
    "raw-limit": "#a9b1b5",
}
INK, MUTED, FAINT = "#22313a", "#66747c", "#d9dfe2"
LOG_FROM_RATIO = 30  # Bars that differ more than this are drawn on a logarithmic axis.
STYLE: dict[Any, Any] = {  # matplotlib's stub wants every key's literal.
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "windlass",  # The same numbers give the same file.
    "svg.fonttype": "none",
}
TICK_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
SCALING_NAME = re.compile(r"(flat-children|flat-parameters|split)-(\d+)")
FILLS = {"flat-children": "child modules", "flat-parameters": "parameters of one module"}
SPLITS = {"split": "find aliases and split"}


@dataclass(frozen=True)
class Point:
    """One competitor at one number of tensors."""

    tensors: int
    title: str
    seconds: Spread


def save_plots(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write every plot as PNG and SVG into `folder`; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with mpl.rc_context(STYLE):
        for workload in dict.fromkeys(section.workload for section in sections):
            panels = [section for section in sections if section.workload == workload]
            drawn = [panel for panel in panels if _measured(panel)]
            if drawn:
                paths += _save(_bars(drawn), folder, workload)
        for name, families, label in (
            ("scaling", FILLS, "time to fill the model (warm)"),
            ("scaling-split", SPLITS, "time to split"),
        ):
            curves = {family: _curves(sections, family) for family in families}
            if any(len(points) > 1 for found in curves.values() for points in found.values()):
                paths += _save(_scaling(curves, families, label), folder, name)
    return paths


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=160, bbox_inches="tight")
    figure.savefig(paths[1], bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return paths


def _caption(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=MUTED)


def _measured(section: Section) -> list[tuple[Entry, Spread]]:
    return [(entry, entry.seconds) for entry in section.entries if entry.seconds]


def _bars(panels: Sequence[Section]) -> Figure:
    """One panel for each cache state, one bar for each competitor."""
    rows = max(len(_measured(panel)) for panel in panels)
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
        _caption(figure, f"{TIMES}: time divided by windlass's; whiskers: fastest to slowest run")
    figure.suptitle(panels[0].title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def _draw_bars(axis: Axes, section: Section) -> None:
    bars = _measured(section)
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
    axis.xaxis.set_major_formatter(lambda seconds, _: _tick_text(seconds))
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


def _tick_text(seconds: float) -> str:
    if seconds == 0:
        return "0"
    unit, size = next(
        ((unit, size) for unit, size in TICK_UNITS if abs(seconds) >= size / 10), TICK_UNITS[-1]
    )
    return f"{seconds / size:.4g} {unit}"


def _scaling(
    curves: Mapping[str, dict[str, list[Point]]], titles: Mapping[str, str], label: str
) -> Figure:
    """Time against the number of tensors, both logarithmic, one panel for each family."""
    figure, axes = plt.subplots(
        1,
        len(curves),
        figsize=(5 * len(curves) + 1, 4.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for family, axis in zip(curves, axes[0], strict=True):
        _draw_scaling(axis, curves[family])
        axis.set_title(titles[family], loc="left", fontsize=10)
    axes[0][0].set_ylabel(label)
    _caption(figure, "dotted: growth in proportion to the number; whiskers: fastest to slowest run")
    figure.suptitle(
        "1 KiB tensors: time against their number", x=0.01, ha="left", fontweight="bold"
    )
    return figure


def _curves(sections: Iterable[Section], family: str) -> dict[str, list[Point]]:
    """Each competitor's points of a family, by the number of tensors; cold ones are left out."""
    curves: dict[str, list[Point]] = {}
    for section in sections:
        match = SCALING_NAME.fullmatch(section.workload)
        if match and match[1] == family and section.cache != "cold":
            for entry, seconds in _measured(section):
                point = Point(int(match[2]), entry.title, seconds)
                curves.setdefault(entry.competitor, []).append(point)
    return {
        competitor: sorted(points, key=lambda point: point.tensors)
        for competitor, points in curves.items()
    }


def _draw_scaling(axis: Axes, curves: dict[str, list[Point]]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    for competitor, points in curves.items():
        counts = [point.tensors for point in points]
        medians = [point.seconds.median for point in points]
        below = [point.seconds.median - point.seconds.lowest for point in points]
        above = [point.seconds.highest - point.seconds.median for point in points]
        colour = COLOURS.get(competitor, INK)
        axis.errorbar(
            counts,
            medians,
            yerr=[below, above],
            color=colour,
            marker="o",
            markersize=5,
            linewidth=2.2 if colour == OURS else 1.5,
            capsize=3,
            label=points[-1].title,
        )
        _draw_slope(axis, counts, medians[0])
    ticks = sorted({point.tensors for points in curves.values() for point in points})
    axis.set_xticks(ticks, [f"{count:,}" for count in ticks], rotation=30)
    axis.minorticks_off()
    axis.set_xlabel("tensors")
    axis.yaxis.set_major_formatter(lambda seconds, _: _tick_text(seconds))
    axis.grid(visible=True, which="major", color=FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.legend(frameon=False)


def _draw_slope(axis: Axes, counts: Sequence[int], first: float) -> None:
    """A dotted line that grows with n, from the curve's first point: steeper is worse."""
    ends = [counts[0], counts[-1]]
    axis.plot(ends, [first, first * ends[1] / ends[0]], ":", color=INK, linewidth=0.9, alpha=0.5)
