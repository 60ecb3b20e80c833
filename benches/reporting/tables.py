"""Tables of a summary: markdown for documents, plain text for a terminal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reporting.summary import Entry, Section, Spread
    from reporting.targets import Verdict

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"
COLUMNS = (
    "competitor",
    "median",
    f"min {DASH} max",
    "GB/s",
    "time ÷ ours",
    f"min {DASH} max",
    "peak memory added",
    "runs",
)
GIGABYTE = 1e9
MEBIBYTE = 2**20
WARM_MAX_STORAGE_SHARE = 0.01
TIME_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
STATES = {
    "cold": "cold",
    "warm": "warm",
    "synced": "no file waits to be written",
    "touched": "memory touched before",
    "untouched": "memory left alone before",
    "any": "cache not controlled",
}
WITH_SPEED = {"fill", "read", "fresh", "forward", "save", "snapshot"}


def markdown(
    headers: Iterable[dict[str, Any]], sections: Iterable[Section], verdicts: Sequence[Verdict]
) -> str:
    """Return machine, command, goals and one table for each section as markdown."""
    parts = [_about(header, bullet="- ") for header in headers]
    if verdicts:
        parts.append(f"### Goals\n\n{goals_markdown(verdicts)}")
    parts += [section_markdown(section) for section in sections]
    return "\n\n".join(parts) + "\n"


def goals_markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the goals beside what was measured, as a markdown table."""
    lines = [markdown_line(row) for row in _verdict_rows(verdicts)]
    return "\n".join([lines[0], "|---|--:|---|", *lines[1:]])


def section_markdown(section: Section) -> str:
    """Return heading, table and notes of one section as markdown."""
    heads, *rows = _table(section)
    lines = [markdown_line(heads), "|---|" + "--:|" * (len(heads) - 1)]
    lines += [markdown_line(row) for row in rows]
    notes = [f"- {note}" for note in _notes(section)]
    return "\n".join([f"### {_heading(section)}", "", *lines, *([""] if notes else []), *notes])


def plain(
    headers: Iterable[dict[str, Any]], sections: Iterable[Section], verdicts: Sequence[Verdict]
) -> str:
    """Return the same for a terminal, in aligned columns and without colour."""
    parts = [_about(header, bullet="  ") for header in headers]
    parts += [
        "\n".join([_heading(section), *_aligned(_table(section)), *_plain_notes(section)])
        for section in sections
    ]
    if verdicts:
        parts.append("\n".join(["Goals", *_aligned(_verdict_rows(verdicts))]))
    return "\n\n".join(parts) + "\n"


def time_text(seconds: float) -> str:
    """Seconds with three digits, in the unit that suits them."""
    unit, size = next(
        ((unit, size) for unit, size in TIME_UNITS if abs(seconds) >= size), TIME_UNITS[-1]
    )
    return f"{three_digits(seconds / size)} {unit}"


def ratio_text(ratio: float) -> str:
    """A ratio with three digits."""
    return f"{three_digits(ratio)}{TIMES}"


def three_digits(value: float) -> str:
    """`value` without an exponent, with three digits and all that stand before the point."""
    digits_before = len(f"{abs(value):.0f}")
    return f"{value:.{max(0, 3 - digits_before)}f}"


def _about(header: dict[str, Any], bullet: str) -> str:
    machine = [f"{bullet}{name}: {value}" for name, value in header["machine"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    lines = [
        f"{header['started']}: {header['command']}",
        "",
        *machine,
        f"{bullet}versions: {versions}",
    ]
    return "\n".join(lines)


def _heading(section: Section) -> str:
    resident = ""
    if section.resident:
        low, high = section.resident.lowest, section.resident.highest
        resident = f" ({low:.1%} {DASH} {high:.1%} resident at the start)"
    return f"{section.title}: {STATES[section.cache]}{resident}"


def _table(section: Section) -> list[Sequence[str]]:
    """Return heads and rows, without the columns in which nothing stands."""
    rows = [_row(section, entry) for entry in section.entries]
    columns = zip(COLUMNS, *rows, strict=True)
    kept = [(head, *cells) for head, *cells in columns if any(cells)]
    return list(zip(*kept, strict=True))


def _row(section: Section, entry: Entry) -> tuple[str, ...]:
    if entry.seconds is None:
        return (entry.title, "failed", *[""] * (len(COLUMNS) - 2))
    speed = entry.num_bytes / entry.seconds.median / GIGABYTE
    extra = entry.extra_peak_bytes
    ours = entry.competitor == section.baseline
    return (
        entry.title,
        time_text(entry.seconds.median),
        _range(entry.seconds, time_text),
        f"{speed:.2f}" if section.task in WITH_SPEED else "",
        "1" if ours else ratio_text(entry.ratio.median) if entry.ratio else "",
        "" if ours or entry.ratio is None else _range(entry.ratio, ratio_text),
        f"{extra / MEBIBYTE:.0f} MiB" if extra is not None else "",
        str(entry.seconds.count),
    )


def _range(spread: Spread, text: Callable[[float], str]) -> str:
    """Lowest and highest; nothing for a single measurement, which has no spread."""
    return f"{text(spread.lowest)} {DASH} {text(spread.highest)}" if spread.count > 1 else ""


def _notes(section: Section) -> list[str]:
    """Lines below a table: settings, what was not warm, who failed, who is missing."""
    notes = [f"{entry.title}: {entry.setting}" for entry in section.entries if entry.setting]
    notes += [
        f"{entry.title}: {entry.touch_share:.0%} of the time passes after the call has returned"
        for entry in section.entries
        if entry.touch_share is not None
    ]
    notes += [
        f"{entry.title}: up to {entry.storage_share:.0%} of the bytes came from the disk"
        for entry in section.entries
        if section.cache == "warm" and (entry.storage_share or 0) > WARM_MAX_STORAGE_SHARE
    ]
    notes += [f"{entry.title}: {text}" for entry in section.entries for text in entry.failures]
    if section.left_out:
        notes.append(f"left out of these rounds: {'; '.join(section.left_out)}")
    return notes


def _plain_notes(section: Section) -> list[str]:
    notes = _notes(section)
    return ["", *notes] if notes else []


def markdown_line(cells: Sequence[str]) -> str:
    """Return one row of a markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_plain_line(row, widths) for row in rows]


def _verdict_rows(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    rows = [
        (verdict.goal, verdict.measured, "met" if verdict.met else "MISSED") for verdict in verdicts
    ]
    return [("goal", "measured", ""), *rows]


def _plain_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if number else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(["  " + first, *others]).rstrip()
