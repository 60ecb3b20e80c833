"""What all plots share: colours, type, how a time is written on an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "safetensors-bytes": "#c25b6a",
    "safetensors-pread": "#c25b6a",
    "fastsafetensors": "#d98032",
    "fastsafetensors-buffered": "#d98032",
    "runai": "#8d6cab",
    "runai-buffered": "#8d6cab",
    "tensorizer": "#5b7fb5",
    "flashpack": "#7a8f3c",
    "memory-copy": "#a9b1b5",
    "raw-limit": "#a9b1b5",
    "direct-limit": "#c9ced1",
}
INK, MUTED, FAINT = "#22313a", "#66747c", "#d9dfe2"
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


def measured(section: Section) -> list[tuple[Entry, Spread]]:
    """Return the competitors that have a time."""
    return [(entry, entry.seconds) for entry in section.entries if entry.seconds]


def caption(figure: Figure, text: str) -> None:
    """Write small words below a figure."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=MUTED)


def tick_text(seconds: float) -> str:
    """Seconds in the unit that suits an axis."""
    if seconds == 0:
        return "0"
    unit, size = next(
        ((unit, size) for unit, size in TICK_UNITS if abs(seconds) >= size / 10), TICK_UNITS[-1]
    )
    return f"{seconds / size:.4g} {unit}"
