"""Time of one `load_file` on a 1 KB file: ours and safetensors' in one process, call by call.

Each call's result is released inside its own clock, since giving memory back is part of the cost;
nothing reads the bytes. Prints one line for each of the two.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import safetensors.torch
import windlass

from engines.proof import verify_tensors
from engines.protocol import emit, parse_arguments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

CALLS = 4_000
WARM_UP_CALLS = 200
TITLES = {"windlass": "windlass.load_file", "safetensors": "safetensors.torch.load_file"}


def call_seconds(load_file: Callable[[Path], object], path: Path) -> float:
    """Seconds of one call and of releasing what it returned."""
    start = time.perf_counter_ns()
    load_file(path)
    return (time.perf_counter_ns() - start) * 1e-9


def main() -> None:
    """Alternate the two functions and report the median of each."""
    arguments = parse_arguments()
    (path,) = arguments.folder.glob("*.safetensors")
    loaders: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        "windlass": windlass.load_file,
        "safetensors": safetensors.torch.load_file,
    }
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(WARM_UP_CALLS + CALLS):
        for name in sorted(loaders, reverse=bool(number % 2)):
            times[name].append(call_seconds(loaders[name], path))
    for name, seconds in times.items():
        facts = verify_tensors(loaders[name](path), arguments.folder)
        lower, middle, upper = statistics.quantiles(seconds[WARM_UP_CALLS:], n=4)
        emit(
            competitor=name,
            title=TITLES[name],
            seconds=middle,
            lower_quartile_seconds=lower,
            upper_quartile_seconds=upper,
            calls=CALLS,
            **facts,
        )


if __name__ == "__main__":
    main()
