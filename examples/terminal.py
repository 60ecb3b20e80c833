"""What the demo shows: steps, sizes, tables, bars and failures, as plain text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BAR_DELAY_SECONDS = 1.0
INDENT = "   "


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, to a person."""


def exit_status(act: Callable[[], object]) -> int:
    """Run an example, and say how it ended: the status is 0 only if all that it checks is right."""
    try:
        act()
    except DemoFailed as failure:
        print(f"\nThe example failed: {failure}", file=sys.stderr)
        return 1
    print("\nEvery check passed.")
    return 0


def step(number: int, title: str) -> None:
    """Begin a step of the demo."""
    print(f"\n{number}. {title}", flush=True)


def say(text: str = "") -> None:
    """Print lines of the step that has begun."""
    for line in text.splitlines() or [""]:
        print(f"{INDENT}{line}".rstrip(), flush=True)


def say_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print an aligned table, its first `left` columns to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    for row in (header, rule, *rows):
        cells = zip(row, widths, strict=True)
        say("  ".join(f"{c:<{w}}" if i < left else f"{c:>{w}}" for i, (c, w) in enumerate(cells)))


def bytes_text(num_bytes: int) -> str:
    """Spell a size in the decimal units of disks."""
    for unit, unit_bytes in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= unit_bytes:
            return f"{num_bytes / unit_bytes:.1f} {unit}"
    return f"{num_bytes / 1000:.1f} kB"


def seconds_text(seconds: float) -> str:
    """Spell a time with three digits that mean something."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def bar(total: int, title: str, *, unit: str = "") -> Any:  # noqa: ANN401  (tqdm has no useful type)
    """Give a progress bar: seen after a second, on a terminal only, and gone when it is done."""
    from tqdm import tqdm  # Only here, so that a machine without it gets the demo's own message.

    return tqdm(
        total=total,
        desc=f"{INDENT}{title}",
        unit=unit,
        unit_scale=unit == "B",
        delay=BAR_DELAY_SECONDS,
        leave=False,
        disable=None,  # Hidden unless standard error is a terminal.
    )
