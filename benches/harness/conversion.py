"""Has rivals with a format of their own write it, before anything is measured."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.machine import environment
from harness.rival_packages import PYTHON, why_missing

if TYPE_CHECKING:
    from definitions import Competitor, Workload

BENCHES = Path(__file__).resolve().parent.parent
COMMON_SUFFIXES = {".safetensors", ".bin"}
CONVERT = "convert"  # As a variant: the engine writes its own format and measures nothing.


def convert_for_rivals(workload: Workload, folder: Path) -> None:
    """Convert the checkpoint of `folder` for each rival that needs it, if it is not done yet."""
    for competitor in workload.competitors:
        why_not_ready(competitor, workload.name, folder)


@cache
def why_not_ready(competitor: Competitor, workload_name: str, folder: Path) -> str | None:
    """Convert for `competitor` where it needs that; return why it cannot run, or None."""
    if competitor.package is None:
        return None
    if reason := why_missing(competitor.package):
        return reason
    if competitor.suffix in COMMON_SUFFIXES or any(folder.glob(f"model{competitor.suffix}")):
        return None
    command = [str(PYTHON), "-m", f"engines.{competitor.program}", "--variant", CONVERT]
    command += ["--workload", workload_name, "--folder", str(folder.resolve())]
    answer = subprocess.run(  # noqa: S603
        command, cwd=BENCHES, env=environment(), capture_output=True, text=True, check=False
    )
    if answer.returncode == 0:
        return None
    return f"{competitor.package} could not convert: {answer.stderr.strip().splitlines()[-1:]}"
