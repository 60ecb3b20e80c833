"""The page of results: goals, pictures, tables, and how it was measured. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from definitions import STATES
from loading import LOADS
from pretrained import PRETRAINED
from saving import SAVES

from reporting.scaling_points import PLOTS, curves_of_plot
from reporting.summary import summarise
from reporting.tables import goals_markdown, markdown_line, section_markdown
from reporting.targets import judge, unmeasured_goals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reporting.summary import Record, Section

#: Where the page is, and what belongs to it.
PAGE, KEPT_RESULTS, PICTURES = "RESULTS.md", "results.jsonl", "pictures"
#: Workloads that are drawn; all are in the tables.
DRAWN = (
    "tinyllama",
    "tinyllama-float32",
    "fresh",
    "first-forward",
    "tinyllama-columns",
    "save-tinyllama",
)
#: Workloads that have a table; points of scaling plots have none.
NAMES = [workload.name for workload in (*LOADS, *SAVES, *PRETRAINED)]
CHANGING = {"commit"}  # Of the machine's description, what belongs to a run.
OPENING = """\
# Results

Everything on this page is made of `results.jsonl` by `make bench-page`, which `make bench` does at
its end; nothing is written by hand. How it is measured and what the words mean:
[README.md](README.md). Times are medians, ratios are medians of the ratios within each round, and
the limits of the machine were measured in the same rounds. Losses are here too."""


def page_text(records: Sequence[Record]) -> str:
    """Return the page as markdown."""
    headers = [record for record in records if record["kind"] == "machine"]
    sections = sorted(summarise(records), key=_place)
    parts = [OPENING]
    if verdicts := judge(sections):
        met = sum(verdict.met for verdict in verdicts)
        parts += [f"## Goals\n\n{met} of {len(verdicts)} are met.", goals_markdown(verdicts)]
    if missing := unmeasured_goals(sections):
        parts.append("\n".join(["Not measured yet:", "", *(f"- {goal}" for goal in missing)]))
    if pictures := pictured(sections):
        parts.append("## Pictures")
        parts += [f"![{_words(name)}]({PICTURES}/{name}.png)" for name in pictures]
    parts.append("## Tables")
    parts += [section_markdown(section) for section in sections if section.workload in NAMES]
    parts.append("## Machine and commands")
    parts += _machines(headers)
    parts.append(_commands(headers, records))
    return "\n\n".join(parts) + "\n"


def pictured(sections: Sequence[Section]) -> list[str]:
    """Return the names of the pictures that these sections give."""
    measured = {
        section.workload for section in sections if any(entry.seconds for entry in section.entries)
    }
    plots = [plot.name for plot in PLOTS if curves_of_plot(sections, plot)]
    return [name for name in DRAWN if name in measured] + plots


def _place(section: Section) -> tuple[int, int]:
    """Where a section stands: as in the tables of workloads, whenever it was measured."""
    number = NAMES.index(section.workload) if section.workload in NAMES else len(NAMES)
    return number, STATES.index(section.cache)


def _words(name: str) -> str:
    return name.replace("-", " ")


def _machines(headers: Iterable[Record]) -> list[str]:
    """Describe each machine once, with the versions of what was measured on it."""
    found: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for header in headers:
        facts = tuple(
            (name, value) for name, value in header["machine"].items() if name not in CHANGING
        )
        found.setdefault(facts, {}).update(header["versions"])
    return [
        "\n".join(f"- {name}: {value}" for name, value in [*facts, ("versions", _listed(versions))])
        for facts, versions in found.items()
    ]


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _commands(headers: Iterable[Record], records: Iterable[Record]) -> str:
    """List when, at which commit and by which command what was measured."""
    workloads: dict[str, dict[str, None]] = {}
    for record in records:
        if record["kind"] == "run":
            workloads.setdefault(record["run"], {})[record["workload"]] = None
    rows = [
        (
            header["started"],
            header["machine"]["commit"],
            f"`{header['command']}`",
            ", ".join(workloads.get(header["run"], {})),
        )
        for header in headers
    ]
    lines = [markdown_line(row) for row in (("started", "commit", "command", "measured"), *rows)]
    return "\n".join([lines[0], "|---|---|---|---|", *lines[1:]])
