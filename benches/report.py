"""Turns a results file into tables and plots.

python benches/report.py benches/results/20260101T120000Z.jsonl --out pictures
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting.plots import save_plots
from reporting.store import pool
from reporting.summary import summarise
from reporting.tables import markdown, plain
from reporting.targets import judge

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description="Report on one or more results files.")
    parser.add_argument("results", type=Path, nargs="+", help="JSON lines written by run.py")
    parser.add_argument("--out", type=Path, help="folder of report and plots; default: beside")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    options = parser.parse_args(argv)
    records = pool(read_lines(path) for path in options.results)
    write_report(records, options.out or options.results[0].with_suffix(""), as_json=options.json)
    return 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_report(records: Sequence[dict[str, Any]], out: Path, *, as_json: bool) -> None:
    """Write `report.md` and the plots into `out`, and print the summary on stdout."""
    headers = [record for record in records if record["kind"] == "machine"]
    sections = summarise(records)
    verdicts = judge(sections)
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(headers, sections, verdicts)
    (out / "report.md").write_text(text)
    save_plots(sections, out)
    if as_json:
        summary = {
            "runs": headers,
            "sections": [asdict(section) for section in sections],
            "targets": [asdict(verdict) for verdict in verdicts],
        }
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    else:
        sys.stdout.write(plain(headers, sections, verdicts))


if __name__ == "__main__":
    sys.exit(main())
