"""The goals that windlass has set itself, and whether the measured numbers meet them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from reporting.pretrained_goals import pretrained_goals
from reporting.ratio_goals import READ_GOALS
from reporting.tables import TIMES, ratio_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from reporting.summary import Entry, Section, Spread

    Sections = Mapping[tuple[str, str], Section]

MEBIBYTE = 2**20
RULE = "transformers-rule"
FILL_SPEEDUP, FILL_SHARE_OF_LIMIT = 2.0, 0.85
IMPORT_MAX_SECONDS = 0.030
FLAT_MAX_SECONDS = 1.2
GROWTHS = (  # First and last workload of each scaling plot, and their state.
    ("flat-children", 5_000, 200_000, "warm"),
    ("flat-parameters", 5_000, 200_000, "warm"),
    ("split", 10_000, 1_000_000, "touched"),
)
SAVE_RIVALS = {"safetensors": "safetensors per shard", "hub": "huggingface_hub"}
SAVE_SPEEDUP, DURABLE_SPEEDUP = 1.3, 1.5
SNAPSHOT_MAX_COPIES = 1.2
SPLIT_MAX_SECONDS = 0.25
EXTRA_PEAK_MAX_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True)
class Verdict:
    """One goal beside what was measured."""

    goal: str
    measured: str
    met: bool


def judge(sections: Sequence[Section]) -> list[Verdict]:
    """Judge every goal that the measured sections speak of."""
    table = {(section.workload, section.cache): section for section in sections}
    checks = (_reads, _fill, _peak, _flat, _plans, _small_costs, _save, _snapshot, _split, _growth)
    verdicts = [verdict for check in checks for verdict in check(table)]
    return verdicts + [Verdict(*goal) for goal in pretrained_goals(table)]


def unmeasured_goals(sections: Sequence[Section]) -> list[str]:
    """Return the goals of reading of which nothing, or not our own time, was measured."""
    table = {(section.workload, section.cache): section for section in sections}
    return [goal.text() for goal in READ_GOALS if goal.judged(table) is None]


def _reads(table: Sections) -> Iterator[Verdict]:
    for goal in READ_GOALS:
        if judged := goal.judged(table):
            yield Verdict(goal.text(), *judged)


def _fill(table: Sections) -> Iterator[Verdict]:
    ratio = _ratio(table, "tinyllama", "warm", RULE)
    limit = _ratio(table, "tinyllama", "warm", "raw-limit")
    if ratio and limit:
        yield Verdict(
            f"2.2 GB into a model, warm: at least 2{TIMES} the transformers rule"
            f" or 0.85{TIMES} the raw limit",
            f"{ratio_text(ratio.median)}, {limit.median:.2f} of the limit",
            ratio.median >= FILL_SPEEDUP or limit.median >= FILL_SHARE_OF_LIMIT,
        )


def _peak(table: Sections) -> Iterator[Verdict]:
    for workload, cache, title in (
        ("tinyllama", "cold", "2.2 GB, cold"),
        ("tinyllama", "warm", "2.2 GB, warm"),
        ("save-tinyllama", "synced", "saving"),
        ("save-strided", "synced", "saving transposed views"),
        ("save-cast", "synced", "saving with a cast"),
    ):
        entry = _ours(table, workload, cache)
        if entry and entry.extra_peak_bytes is not None:
            yield Verdict(
                f"{title}: peak at most the model plus 64 MiB",
                f"{entry.extra_peak_bytes / MEBIBYTE:.0f} MiB",
                entry.extra_peak_bytes <= EXTRA_PEAK_MAX_BYTES,
            )


def _flat(table: Sections) -> Iterator[Verdict]:
    for shape in ("children", "parameters"):
        for cache in ("cold", "warm"):
            seconds = _seconds(table, f"flat-{shape}-50000", cache)
            if seconds is not None:
                goal = f"50,000 small tensors ({shape}), {cache}: at most 1.2 s"
                yield Verdict(goal, time_text(seconds), seconds <= FLAT_MAX_SECONDS)


def _growth(table: Sections) -> Iterator[Verdict]:
    """Compare growth from the smallest to the largest count with that of n log n."""
    for family, smallest, largest, cache in GROWTHS:
        small = _seconds(table, f"{family}-{smallest}", cache)
        large = _seconds(table, f"{family}-{largest}", cache)
        allowed = largest * log(largest) / (smallest * log(smallest))
        if small and large:
            yield Verdict(
                f"{family}, {smallest:,} → {largest:,}: n log n or better, {ratio_text(allowed)}",
                ratio_text(large / small),
                large / small <= allowed,
            )


def _plans(table: Sections) -> Iterator[Verdict]:
    for workload, title, limit in (
        ("llama70b-plan", "open and plan 70B", 0.020),
        ("million-plan", "open and plan 1,000,000 tensors", 2.0),
    ):
        for cache in ("cold", "warm"):
            seconds = _seconds(table, workload, cache)
            if seconds is not None:
                goal = f"{title}, {cache}: at most {time_text(limit)}"
                yield Verdict(goal, time_text(seconds), seconds <= limit)


def _small_costs(table: Sections) -> Iterator[Verdict]:
    seconds = _seconds(table, "import", "any")
    if seconds is not None:
        yield Verdict(
            "import windlass: at most 30 ms", time_text(seconds), seconds <= IMPORT_MAX_SECONDS
        )
    if ratio := _ratio(table, "call-overhead", "any", "safetensors"):
        yield Verdict(
            "load_file of 1 KB: not above safetensors",
            f"{ratio_text(ratio.median)} as fast",
            ratio.median >= 1,
        )


def _save(table: Sections) -> Iterator[Verdict]:
    for workload, title, speedup in (
        ("save-tinyllama", "save 2.2 GB", SAVE_SPEEDUP),
        ("save-tinyllama-durable", "save 2.2 GB, durable", DURABLE_SPEEDUP),
    ):
        for rival, rival_title in SAVE_RIVALS.items():
            if ratio := _ratio(table, workload, "synced", rival):
                goal = f"{title}: at least {speedup}{TIMES} {rival_title}"
                yield Verdict(goal, ratio_text(ratio.median), ratio.median >= speedup)


def _snapshot(table: Sections) -> Iterator[Verdict]:
    for cache in ("touched", "untouched"):
        if ratio := _ratio(table, "save-async", cache, "memory-copy"):
            copies = 1 / ratio.median
            goal = f"save_async, memory {cache}: at most {SNAPSHOT_MAX_COPIES}{TIMES} one copy"
            yield Verdict(goal, ratio_text(copies), copies <= SNAPSHOT_MAX_COPIES)


def _split(table: Sections) -> Iterator[Verdict]:
    seconds = _seconds(table, "split-50000", "touched")
    if seconds is not None:
        goal = "aliases and split of 50,000 tensors: at most 0.25 s"
        yield Verdict(goal, time_text(seconds), seconds <= SPLIT_MAX_SECONDS)


def _ratio(table: Sections, workload: str, cache: str, competitor: str) -> Spread | None:
    section = table.get((workload, cache))
    entry = section.entry(competitor) if section else None
    return entry.ratio if entry else None


def _ours(table: Sections, workload: str, cache: str) -> Entry | None:
    section = table.get((workload, cache))
    return section.entry(section.baseline) if section else None


def _seconds(table: Sections, workload: str, cache: str) -> float | None:
    entry = _ours(table, workload, cache)
    return entry.seconds.median if entry and entry.seconds else None
