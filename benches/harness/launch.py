"""Runs one engine in a fresh process and turns its output, or its failure, into records."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.conversion import why_not_ready
from harness.machine import environment
from harness.rival_packages import PYTHON

if TYPE_CHECKING:
    from definitions import Competitor

    from harness.schedule import Turn

BENCHES = Path(__file__).resolve().parent.parent
ATTEMPTS = 3
Record = dict[str, Any]


@dataclass(frozen=True)
class Launcher:
    """How engines are started: the limits that every run shares."""

    timeout_seconds: float
    limit_threads: int

    def run(self, turn: Turn, folder: Path) -> list[Record]:
        """Run the engine of `turn` and return a record for each line it prints; never raise.

        A run that never reached its cache state has measured nothing, so it is tried again.
        """
        for _ in range(ATTEMPTS):
            records = self._run_once(turn, folder)
            if "CacheStateError" not in records[0].get("error", ""):
                break
        return records

    def _run_once(self, turn: Turn, folder: Path) -> list[Record]:
        about: Record = {
            "kind": "run",
            "workload": turn.workload.name,
            "workload_title": turn.workload.title,
            "task": turn.workload.task,
            "baseline": turn.workload.baseline,
            "competitor": turn.competitor.key,
            "title": turn.competitor.title,
            "setting": turn.competitor.setting,
            "cache": turn.cache,
            "round": turn.round_number,
            "started": round(time.time(), 3),
        }
        if reason := why_not_ready(turn.competitor, turn.workload.name, folder):
            return [about | {"error": reason}]
        try:
            answer = subprocess.run(  # noqa: S603
                self._command(turn, folder),
                cwd=BENCHES,
                env=environment() | dict(turn.competitor.environment),
                capture_output=True,
                text=True,
                timeout=self.timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [about | {"error": f"not done after {self.timeout_seconds:.0f} s"}]
        if answer.returncode != 0:
            return [about | {"error": _last_line(answer.stderr) or f"exit {answer.returncode}"}]
        lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
        return [about | json.loads(line) for line in lines] or [about | {"error": "no output"}]

    def _command(self, turn: Turn, folder: Path) -> list[str]:
        """Start as a module: a script's own folder would shadow the libraries' names."""
        arguments = {
            "--workload": turn.workload.name,
            "--folder": str(folder.resolve()),
            "--cache": turn.cache,
            "--variant": turn.competitor.variant,
            "--threads": str(self.limit_threads),
        }
        pairs = [word for pair in arguments.items() for word in pair]
        return [interpreter_of(turn.competitor), "-m", f"engines.{turn.competitor.program}", *pairs]


def interpreter_of(competitor: Competitor) -> str:
    """Return the Python that has what the competitor needs."""
    if competitor.python:
        return str(BENCHES.parent / competitor.python)
    return str(PYTHON) if competitor.package else sys.executable


def _last_line(text: str) -> str:
    """Return the last line that says something: the exception of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
