"""Rebuilds RESULTS.md and its pictures from the results that are kept, after adding new ones.

python benches/page.py                                       # the page again
python benches/page.py benches/results/A.jsonl B.jsonl       # with the runs of these files

Files named together are pooled: their rounds count as rounds of one measurement, so that a long one
can be done in pieces. What they measured replaces what was kept of the same workload and state.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reporting.page import KEPT_RESULTS, PAGE, PICTURES, page_text, pictured
from reporting.store import compact, expand, pool, replace
from reporting.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reporting.summary import Record

BENCHES = Path(__file__).resolve().parent
DOTS_PER_INCH = 80  # Enough to read, and a few kilobytes.
SMALL_TWIN = "-quick"  # Checks the harness and measures nothing.


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line, add and rebuild."""
    parser = argparse.ArgumentParser(description="Rebuild RESULTS.md from results.jsonl.")
    parser.add_argument("results", type=Path, nargs="*", help="JSON lines of run.py to add first")
    parser.add_argument("--folder", type=Path, default=BENCHES, help="of page and kept results")
    options = parser.parse_args(argv)
    rebuild(options.folder, options.results)
    return 0


def rebuild(folder: Path, added: Sequence[Path] = ()) -> None:
    """Add the runs of files to the kept results of `folder`, and write page and pictures."""
    records = replace(kept_records(folder), pool(measured_lines(path) for path in added))
    lines = compact(records)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / KEPT_RESULTS).write_text(text)
    records = expand(lines)
    (folder / PAGE).write_text(page_text(records))
    draw_pictures(records, folder / PICTURES)


def kept_records(folder: Path) -> list[Record]:
    """Return the records that are kept in `folder`, if there are any."""
    path = folder / KEPT_RESULTS
    if not path.is_file():
        return []
    return expand(json.loads(line) for line in path.read_text().splitlines())


def measured_lines(path: Path) -> list[Record]:
    """Return the lines of a results file, without the small twins."""
    lines: list[Record] = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if not line.get("workload", "").endswith(SMALL_TWIN)]


def draw_pictures(records: Sequence[Record], folder: Path) -> None:
    """Draw the pictures of the page, and remove those that it no longer shows."""
    from matplotlib import pyplot as plt  # Whoever wants the text alone does not wait for it.
    from reporting.plots import draw_plots

    sections = summarise(records)
    names = pictured(sections)
    folder.mkdir(exist_ok=True)
    for name, figure in draw_plots(sections, names):
        figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH, bbox_inches="tight")
        plt.close(figure)
    for path in folder.glob("*.png"):
        if path.stem not in names:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
