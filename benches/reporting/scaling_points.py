"""Which scaling plots there are, and the points that they show. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reporting.summary import Section, Spread


@dataclass(frozen=True)
class Panel:
    """The workloads `FAMILY-N` in one state."""

    family: str
    cache: str
    title: str


@dataclass(frozen=True)
class Plot:
    """One figure. `growing`: time should grow with the amount, and a dotted line shows that."""

    name: str
    title: str
    amount: str
    panels: tuple[Panel, ...]
    growing: bool = True


@dataclass(frozen=True)
class Point:
    """One competitor at one amount."""

    amount: int
    title: str
    seconds: Spread


def _cold_and_warm(family: str) -> tuple[Panel, ...]:
    return Panel(family, "cold", "cold"), Panel(family, "warm", "warm")


PLOTS = (
    Plot(
        "scaling",
        "Filling a model with tensors of 1 KiB, warm: time against their number",
        "tensors",
        (
            Panel("flat-children", "warm", "child modules"),
            Panel("flat-parameters", "warm", "parameters of one module"),
        ),
    ),
    Plot(
        "scaling-split",
        "Finding aliases and splitting: time against the number of tensors",
        "tensors",
        (Panel("split", "touched", "tensors of 1 KiB, shards of 5 MB"),),
    ),
    Plot(
        "scaling-bytes",
        "Filling a model from 4 shards: time against their bytes",
        "MB",
        _cold_and_warm("bytes"),
    ),
    Plot(
        "scaling-shards",
        "Filling a model with 1 GB: time against the number of shards",
        "shards",
        _cold_and_warm("shards"),
        growing=False,
    ),
    Plot(
        "scaling-threads",
        "Filling a model with 2.2 GB: time against the number of threads",
        "threads",
        _cold_and_warm("threads"),
        growing=False,
    ),
)


def curves_of_plot(sections: Iterable[Section], plot: Plot) -> dict[Panel, dict[str, list[Point]]]:
    """Return the curves of each panel in which something was measured at more than one amount."""
    known = list(sections)
    curves = {panel: curves_of(known, panel) for panel in plot.panels}
    return {
        panel: found
        for panel, found in curves.items()
        if any(len(points) > 1 for points in found.values())
    }


def curves_of(sections: Iterable[Section], panel: Panel) -> dict[str, list[Point]]:
    """Return each competitor's points of a family in one state, by the amount."""
    name = re.compile(rf"{panel.family}-(\d+)")
    curves: dict[str, list[Point]] = {}
    for section in sections:
        match = name.fullmatch(section.workload)
        if match and section.cache == panel.cache:
            for entry in section.entries:
                if entry.seconds:
                    point = Point(int(match[1]), entry.title, entry.seconds)
                    curves.setdefault(entry.competitor, []).append(point)
    return {
        competitor: sorted(points, key=lambda point: point.amount)
        for competitor, points in curves.items()
    }
