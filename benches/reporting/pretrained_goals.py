"""The goals of `from_pretrained` and its import. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reporting.tables import TIMES, ratio_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reporting.summary import Section

MEBIBYTE = 2**20
RIVALS = {"transformers-4": "transformers 4.46.3", "transformers-5": "transformers 5"}
OURS = {"windlass": "from_pretrained", "windlass-owned": 'from_pretrained(memory="owned")'}
SPEEDUPS = (
    ("pretrained-tinyllama", "cold", "2.2 GB, cold", 2.0),
    ("pretrained-tinyllama", "warm", "2.2 GB, warm", 1.5),
    ("pretrained-tiny", "warm", "6,000 tiny tensors", 5.0),
)
PEAK_MAX_BYTES = 64 * MEBIBYTE  # Beyond the model itself.
IMPORT_MAX_TIMES = 1.2


def pretrained_goals(table: Mapping[tuple[str, str], Section]) -> Iterator[tuple[str, str, bool]]:
    """Yield each goal that was measured: its words, the measured value, whether it is met."""
    for workload, cache, title, speedup in SPEEDUPS:
        section = table.get((workload, cache))
        for ours, call in OURS.items():
            for rival, name in RIVALS.items():
                measured = _times(section, ours, rival) if section else None
                if measured is not None:
                    goal = f"{call}, {title}: at least {speedup}{TIMES} {name}"
                    yield goal, ratio_text(measured), measured >= speedup
    yield from _peaks(table)
    section = table.get(("import-modeling-utils", "any"))
    torch = section.entry("torch") if section else None
    if torch and torch.ratio:
        times = 1 / torch.ratio.median
        goal = f"import windlass.modeling_utils: at most {IMPORT_MAX_TIMES}{TIMES} torch alone"
        yield goal, ratio_text(times), times <= IMPORT_MAX_TIMES


def _times(section: Section, ours: str, rival: str) -> float | None:
    """Return how often our time goes into a rival's, if both were measured."""
    own, other = section.entry(ours), section.entry(rival)
    if not (own and own.ratio and other and other.ratio):
        return None
    return other.ratio.median / own.ratio.median


def _peaks(table: Mapping[tuple[str, str], Section]) -> Iterator[tuple[str, str, bool]]:
    for cache in ("cold", "warm"):
        section = table.get(("pretrained-tinyllama", cache))
        entry = section.entry("windlass") if section else None
        if entry and entry.extra_peak_bytes is not None:
            beyond = entry.extra_peak_bytes - entry.num_bytes
            goal = f"from_pretrained, 2.2 GB, {cache}: peak at most the model plus 64 MiB"
            yield goal, f"{beyond / MEBIBYTE:.0f} MiB more", beyond <= PEAK_MAX_BYTES
