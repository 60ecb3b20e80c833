"""Medians, spreads and within-round ratios of a results file. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workloads import find_workload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Record = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """A median with what lies around it."""

    median: float
    lowest: float
    lower_quartile: float
    upper_quartile: float
    highest: float
    count: int


@dataclass(frozen=True)
class Entry:
    """One competitor in one workload and cache state."""

    competitor: str
    title: str
    setting: str
    seconds: Spread | None
    ratio: Spread | None  # Its time divided by the baseline's time of the same round.
    num_bytes: int
    extra_peak_bytes: float | None
    storage_share: float | None  # Highest part of its bytes that came from the disk.
    touch_share: float | None  # Part of the time after the call returned; only of dict reads.
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One workload in one cache state; `left_out` are the titles of those who were not asked."""

    workload: str
    title: str
    task: str
    cache: str
    baseline: str
    resident: Spread | None
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]

    def entry(self, competitor: str) -> Entry | None:
        """Return the entry of `competitor`, if it took part."""
        return next((entry for entry in self.entries if entry.competitor == competitor), None)


def spread_of(values: Iterable[float]) -> Spread | None:
    """Summarise `values`; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    lower, middle, upper = (
        statistics.quantiles(ordered, n=4, method="inclusive") if ordered[1:] else ordered * 3
    )
    return Spread(middle, ordered[0], lower, upper, ordered[-1], len(ordered))


def summarise(records: Iterable[Record]) -> list[Section]:
    """Group records into sections, in the order in which they were measured."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record["kind"] == "run":
            groups.setdefault((record["workload"], record["cache"]), []).append(record)
    return [_section(group) for group in groups.values()]


def _section(records: Sequence[Record]) -> Section:
    first = records[0]
    defined = _defined(first["workload"], first["cache"])
    measured = dict.fromkeys(record["competitor"] for record in records)
    order = [key for key in {**defined, **measured} if key in measured]
    baseline = _seconds_by_round(records, first["baseline"])
    residents = (record.get("resident_fraction") for record in records)
    return Section(
        workload=first["workload"],
        title=first["workload_title"],
        task=first["task"],
        cache=first["cache"],
        baseline=first["baseline"],
        resident=spread_of(fraction for fraction in residents if fraction is not None),
        entries=tuple(_entry(records, competitor, baseline) for competitor in order),
        left_out=tuple(title for key, title in defined.items() if key not in measured),
    )


def _defined(name: str, state: str) -> dict[str, str]:
    """Return titles by the keys of those who take part, in the order of the workload."""
    try:
        workload = find_workload(name)
    except KeyError:  # It was measured once and is no more.
        return {}
    return {competitor.key: competitor.title for competitor in workload.entrants(state)}


def _entry(records: Sequence[Record], competitor: str, baseline: dict[int, float]) -> Entry:
    own = [record for record in records if record["competitor"] == competitor]
    good = [record for record in own if "error" not in record]
    seconds = _seconds_by_round(own, competitor)
    # A difference, such as an import's cost, may come out as nothing or less: no ratio then.
    common = [number for number in seconds if min(seconds[number], baseline.get(number, 0)) > 0]
    extra = spread_of(record["extra_peak_bytes"] for record in good if "extra_peak_bytes" in record)
    touch = spread_of(
        1 - record["seconds_before_touch"] / record["seconds"]
        for record in good
        if "seconds_before_touch" in record
    )
    storage = spread_of(
        record["read_from_storage_bytes"] / record["bytes"]
        for record in good
        if record.get("bytes") and "read_from_storage_bytes" in record
    )
    return Entry(
        competitor=competitor,
        title=own[-1]["title"],
        setting=own[-1].get("setting", ""),
        seconds=spread_of(seconds.values()),
        ratio=spread_of(seconds[number] / baseline[number] for number in common),
        num_bytes=max((record.get("bytes", 0) for record in good), default=0),
        extra_peak_bytes=extra.median if extra else None,
        storage_share=storage.highest if storage else None,
        touch_share=touch.median if touch else None,
        failures=tuple(dict.fromkeys(record["error"] for record in own if "error" in record)),
    )


def _seconds_by_round(records: Iterable[Record], competitor: str) -> dict[int, float]:
    return {
        record["round"]: record["seconds"]
        for record in records
        if record["competitor"] == competitor and "error" not in record
    }
