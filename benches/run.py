"""Runs benchmarks: builds the data, starts the engines in turn, writes JSON lines and the report.

python benches/run.py --workloads tinyllama --rounds 7 --cache cold,warm
python benches/run.py --quick
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.launch import Launcher, Record
from harness.machine import describe_machine, package_versions, require_linux
from harness.raw_programs import compile_raw_programs
from harness.schedule import Turn, plan_turns
from page import rebuild
from report import write_report
from scaling import NAMES
from workloads import GROUPS, NAMED, find_workload, prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from definitions import Workload

BENCHES = Path(__file__).resolve().parent
DEFAULT_ROUNDS = 5
FOLDERS = {"--work-folder": BENCHES / "data", "--results": BENCHES / "results"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if any run failed."""
    require_linux()
    words = sys.argv[1:] if argv is None else list(argv)
    options = parse_options(words)
    workloads = chosen_workloads(options.workloads, quick=options.quick)
    rounds = range(options.first_round, options.first_round + options.rounds)
    turns = list(plan_turns(workloads, options.cache, rounds, options.without))
    folders = build_data(workloads, options.work_folder)
    launcher = Launcher(options.timeout, options.limit_threads)
    path = new_results_file(options.results)
    with path.open("w") as results:
        header = describe_run(words, options.work_folder)
        results.write(json.dumps(header) + "\n")
        records = [header]
        for record in run_turns(turns, folders, launcher):
            results.write(json.dumps(record) + "\n")
            results.flush()
            records.append(record)
    write_report(records, path.with_suffix(""), as_json=options.json)
    if options.page:
        rebuild(BENCHES, [path])
    return int(any("error" in record for record in records))


def parse_options(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Benchmarks of windlass and its peers.",
        epilog="workloads: "
        + ", ".join(workload.name for workload in NAMED)
        + "; groups: "
        + ", ".join(GROUPS)
        + "; and "
        + ", ".join(f"{family}-N" for family in NAMES)
        + " for every N",
    )
    parser.add_argument("--workloads", type=split_words, metavar="NAME,…")
    parser.add_argument("--rounds", type=positive, help=f"default {DEFAULT_ROUNDS}; --quick: 1")
    parser.add_argument("--first-round", type=int, default=0, help="of a piece of a measurement")
    parser.add_argument("--cache", type=cache_states, default=["cold", "warm"])
    parser.add_argument("--without", type=split_words, default=[], metavar="COMPETITOR,…")
    parser.add_argument(
        "--quick", action="store_true", help="small twins: checks the harness, measures nothing"
    )
    parser.add_argument("--page", action="store_true", help="show this run in RESULTS.md")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    for option, folder in FOLDERS.items():
        parser.add_argument(option, type=Path, default=folder)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run")
    parser.add_argument("--limit-threads", type=positive, default=16)
    options = parser.parse_args(words)
    options.workloads = options.workloads or (["quick"] if options.quick else ["all"])
    options.rounds = options.rounds or (1 if options.quick else DEFAULT_ROUNDS)
    return options


def split_words(text: str) -> list[str]:
    """Split `a,b` into its words."""
    return [word for word in text.split(",") if word]


def cache_states(text: str) -> list[str]:
    """Split and check `cold,warm`."""
    states = split_words(text)
    if not states or set(states) - {"cold", "warm"}:
        message = f"{text!r} is not cold, warm or cold,warm"
        raise argparse.ArgumentTypeError(message)
    return states


def positive(text: str) -> int:
    """Read an integer above zero."""
    number = int(text)
    if number < 1:
        message = f"{text} is not above zero"
        raise argparse.ArgumentTypeError(message)
    return number


def chosen_workloads(names: Iterable[str], *, quick: bool) -> list[Workload]:
    """Resolve names and groups, each workload once, in the order asked."""
    found: dict[str, Workload] = {}
    for name in names:
        for member in GROUPS.get(name, (name,)):
            try:
                workload = find_workload(f"{member}-quick" if quick else member)
            except KeyError:
                sys.exit(f"benches: there is no workload {member!r}; see --help")
            found[workload.name] = workload
    return list(found.values())


def build_data(workloads: Iterable[Workload], work_folder: Path) -> dict[str, Path]:
    """Build what is not there yet; return each workload's checkpoint folder."""
    work_folder.mkdir(parents=True, exist_ok=True)
    compile_raw_programs(work_folder)
    folders = {}
    for workload in workloads:
        say(f"data: {workload.layout}")
        folders[workload.name] = prepare(workload, work_folder)
    return folders


def run_turns(
    turns: Sequence[Turn], folders: dict[str, Path], launcher: Launcher
) -> Iterable[Record]:
    """Run each turn and yield its records, telling on stderr what happens."""
    for number, turn in enumerate(turns, start=1):
        for record in launcher.run(turn, folders[turn.workload.name]):
            say(f"[{number}/{len(turns)}] {outcome(record)}")
            yield record


def outcome(record: Record) -> str:
    """One line about one record."""
    what = f"{record['workload']} {record['cache']} round {record['round']}: {record['title']}"
    if "error" in record:
        return f"{what}: FAILED: {record['error']}"
    resident = record.get("resident_fraction")
    state = "" if resident is None else f", {resident:.1%} resident at the start"
    return f"{what}: {record['seconds']:.6f} s{state}"


def describe_run(words: Sequence[str], work_folder: Path) -> Record:
    """Return the first line of a results file: command, machine, versions.

    The command is what others can run: it names no folder of this machine.
    """
    folders = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in FOLDERS:
        folders.add_argument(option)
    _, others = folders.parse_known_args(words)
    return {
        "kind": "machine",
        "command": shlex.join(["python", "benches/run.py", *others]),
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "machine": describe_machine(work_folder),
        "versions": package_versions(),
    }


def new_results_file(results: Path) -> Path:
    """Return a new file's path, named by the time in UTC."""
    results.mkdir(parents=True, exist_ok=True)
    return results / time.strftime("%Y%m%dT%H%M%SZ.jsonl", time.gmtime())


def say(text: str) -> None:
    """Progress goes to stderr; stdout is for results."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
