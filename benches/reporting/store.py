"""Results as they are kept: each competitor's rounds of a workload as one line. Pure.

`compact` makes lines of records, `expand` makes records of lines. What the page does not show is
left out, and times keep six digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from reporting.summary import Record

#: What all rounds of a competitor have in common, and what differs.
COMMON = (
    "workload",
    "workload_title",
    "task",
    "baseline",
    "competitor",
    "title",
    "setting",
    "cache",
)
VARYING = (
    "run",
    "round",
    "seconds",
    "error",
    "bytes",
    "resident_fraction",
    "extra_peak_bytes",
    "seconds_before_touch",
    "read_from_storage_bytes",
)
DIGITS = 6
ROUNDS_OF_A_FILE = 10_000  # Apart by this, rounds of different files are never taken for one.


def pool(files: Iterable[Sequence[Record]]) -> list[Record]:
    """Return the records of several results files as one, every round with a number of its own.

    A run's header has the versions of all its programs.
    """
    pooled: list[Record] = []
    for number, records in enumerate(files):
        (header,) = (record for record in records if record["kind"] == "machine")
        runs = [record for record in records if record["kind"] == "run"]
        versions = header["versions"].copy()
        for run in runs:
            versions |= run.get("versions", {})
        pooled.append(header | {"versions": versions, "run": header["started"]})
        pooled += [
            run | {"run": header["started"], "round": number * ROUNDS_OF_A_FILE + run["round"]}
            for run in runs
        ]
    return pooled


def replace(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Return `old` with every workload and state that `new` measured taken from there.

    Headers stay as long as a round of theirs does.
    """
    measured = {_place(record) for record in new if record["kind"] == "run"}
    kept = [record for record in old if record["kind"] == "run" and _place(record) not in measured]
    runs = kept + [record for record in new if record["kind"] == "run"]
    needed = {record["run"] for record in runs}
    headers = {record["run"]: record for record in [*old, *new] if record["kind"] == "machine"}
    return [header for name, header in sorted(headers.items()) if name in needed] + runs


def compact(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return headers as they are, and one line for each competitor in each workload and state."""
    lines: list[dict[str, Any]] = []
    series: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        if record["kind"] == "machine":
            lines.append(record)
            continue
        key = (*_place(record), record["competitor"])
        if key not in series:
            common = {name: record[name] for name in COMMON if record.get(name)}
            series[key] = {"kind": "series", **common, **{name: [] for name in VARYING}}
        for name in VARYING:
            series[key][name].append(_shortened(record.get(name)))
    return lines + [_without_blanks(line) for line in series.values()]


def expand(lines: Iterable[dict[str, Any]]) -> list[Record]:
    """Return the records that `compact` made these lines of."""
    records: list[Record] = []
    for line in lines:
        if line["kind"] == "machine":
            records.append(line)
            continue
        common = {name: line[name] for name in COMMON if name in line}
        for number in range(len(line["round"])):
            varying = {name: line[name][number] for name in VARYING if name in line}
            present = {name: value for name, value in varying.items() if value is not None}
            records.append({"kind": "run", **common, **present})
    return records


def _place(record: Record) -> tuple[str, str]:
    return record["workload"], record["cache"]


def _shortened(value: object) -> object:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _without_blanks(line: dict[str, Any]) -> dict[str, Any]:
    """Leave out a column in which nothing stands."""
    return {
        name: value
        for name, value in line.items()
        if name not in VARYING or any(item is not None for item in value)
    }
