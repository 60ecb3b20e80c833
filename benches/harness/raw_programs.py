"""Compiles the programs in C, which measure the machine's limits, into the data folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent
HEADER = SOURCES / "raw_chunks.h"
PROGRAMS = ("raw_limit", "raw_write")


def compile_raw_programs(work_folder: Path) -> None:
    """Compile each program unless its binary is newer than its source."""
    for program in PROGRAMS:
        _compile(SOURCES / f"{program}.c", work_folder / program)


def _compile(source: Path, binary: Path) -> None:
    changed = max(path.stat().st_mtime for path in (source, HEADER))
    if binary.is_file() and binary.stat().st_mtime >= changed:
        return
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("benches: no C compiler `cc`: leave the raw limit out with --without raw-limit")
    command = [compiler, "-O2", "-pthread", str(source), "-o", str(binary)]
    subprocess.run(command, check=True)  # noqa: S603


def binary_beside(checkpoint_folder: Path, program: str) -> Path:
    """Return the compiled program that belongs to a checkpoint of the same work folder."""
    return checkpoint_folder.resolve().parent / program
