"""Compiles `raw_limit.c` into the data folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "raw_limit.c"
BINARY_NAME = "raw_limit"


def compile_raw_limit(work_folder: Path) -> None:
    """Compile the program unless the binary is newer than its source."""
    binary = work_folder / BINARY_NAME
    if binary.is_file() and binary.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("benches: no C compiler `cc`: leave the raw limit out with --without raw-limit")
    command = [compiler, "-O2", "-pthread", str(SOURCE), "-o", str(binary)]
    subprocess.run(command, check=True)  # noqa: S603


def binary_beside(checkpoint_folder: Path) -> Path:
    """Return the compiled program that belongs to a checkpoint of the same work folder."""
    return checkpoint_folder.resolve().parent / BINARY_NAME
