"""Time of `import NAME` in a fresh interpreter, above one that imports nothing.

Pairs of launches, bare and importing, in turn; `seconds` is the median of their differences.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from engines.protocol import emit, parse_arguments

PAIRS = 31
SLOW_SECONDS, SLOW_PAIRS = 0.5, 9  # A launch that takes longer is measured less often.


def launch_seconds(statement: str) -> float:
    """Seconds from starting an interpreter that runs `statement` to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)  # noqa: S603
    return time.perf_counter() - start


def main() -> None:
    """Measure the import of the module that the variant names."""
    statement = f"import {parse_arguments().variant}"
    launch_seconds(statement)  # Compiles the bytecode, which is paid once and not here.
    pairs = PAIRS if launch_seconds(statement) < SLOW_SECONDS else SLOW_PAIRS
    bare, importing = [], []
    for number in range(pairs):
        first, second = ("pass", statement) if number % 2 else (statement, "pass")
        times = {first: launch_seconds(first), second: launch_seconds(second)}
        bare.append(times["pass"])
        importing.append(times[statement])
    differences = [new - old for new, old in zip(importing, bare, strict=True)]
    emit(
        seconds=statistics.median(differences),
        bare_seconds=statistics.median(bare),
        pairs=pairs,
        proof="exit status 0",
    )


if __name__ == "__main__":
    main()
