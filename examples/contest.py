"""windlass and its competitors on the same files: what each one runs, the clock, the table.

As a program it is one run in a fresh process, and prints one line of JSON:

    python examples/contest.py COMPETITOR FOLDER BYTES
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import windlass
from generated import UNFILLED, build_model, layout, sum_of_words
from safetensors.torch import load_file
from terminal import DemoFailed, bar, bytes_text, say, say_table, seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

ROUNDS_HERE = 5
ROUNDS_IN_FRESH_PROCESSES = 3
INDEX_NAME = "model.safetensors.index.json"
BLOCK_BYTES = 16 << 20


def fill_by_windlass(model: nn.Module, folder: Path) -> None:
    """Fill the model with windlass."""
    windlass.load_sharded_checkpoint(model, folder, strict=False)


def fill_by_rule(model: nn.Module, folder: Path) -> None:
    """Fill the model as transformers' `load_sharded_checkpoint(strict=False)` does."""
    _fill_by_rule(model, folder, gc.collect)


def fill_by_rule_uncollected(model: nn.Module, folder: Path) -> None:
    """Fill the model by the same rule, but leave garbage to Python's own collector."""
    _fill_by_rule(model, folder, lambda: 0)


def _fill_by_rule(model: nn.Module, folder: Path, collect: Callable[[], int]) -> None:
    weight_map: dict[str, str] = json.loads((folder / INDEX_NAME).read_text())["weight_map"]
    expected = model.state_dict().keys()
    [name for name in expected if name not in weight_map]  # The rule reports both;
    [name for name in weight_map if name not in expected]  # with strict=False that is all.
    for shard in set(weight_map.values()):
        tensors = load_file(folder / shard)
        model.load_state_dict(tensors, strict=False)
        del tensors
        collect()


def read_by_safetensors(_: nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    """Read all shards into a dict and touch every byte: before that, nothing has been read."""
    loaded: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded |= load_file(path)
    sum_of_words(loaded)
    return loaded


@dataclass(frozen=True)
class Competitor:
    """A title for the table, and what runs under the clock.

    It fills the model and returns nothing, or returns the tensors that it read.
    """

    title: str
    load: Callable[[nn.Module, Path], Mapping[str, torch.Tensor] | None]


OURS = "windlass"
COMPETITORS = {
    OURS: Competitor("windlass.load_sharded_checkpoint", fill_by_windlass),
    "rule": Competitor("transformers rule", fill_by_rule),
    "uncollected": Competitor("  the same without gc.collect()", fill_by_rule_uncollected),
    "safetensors": Competitor("safetensors, into a dict only", read_by_safetensors),
}
EXPLANATION = """\
transformers rule: per shard load_file, load_state_dict(strict=False), gc.collect().
safetensors: load_file of every shard, every byte touched; no model is filled.
Warm: the files are in the page cache, and the model's memory is written, before each clock."""


@dataclass(frozen=True)
class Run:
    """One clocked load, and the sum of all words that it left in memory."""

    seconds: float
    checksum: int


def clock(competitor: str, model: nn.Module, folder: Path) -> Run:
    """Write `UNFILLED` over the model, time one load, and sum what is in memory afterwards."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(UNFILLED)
    load = COMPETITORS[competitor].load
    start = time.perf_counter()
    loaded = load(model, folder)
    seconds = time.perf_counter() - start
    found: Mapping[str, torch.Tensor] = loaded or parameters
    return Run(seconds, sum_of_words({name: found[name] for name in parameters}))


def alternate(
    run: Callable[[str], Run], rounds: int, expected_checksum: int
) -> dict[str, list[float]]:
    """Run all in rounds, A B C, then C B A; return each one's seconds, or fail on wrong bytes."""
    seconds: dict[str, list[float]] = {name: [] for name in COMPETITORS}
    with bar(rounds * len(COMPETITORS), "comparing", unit="run") as progress:
        for number in range(rounds):
            for name in reversed(COMPETITORS) if number % 2 else COMPETITORS:
                result = run(name)
                if result.checksum != expected_checksum:
                    message = f"{COMPETITORS[name].title.strip()} loaded other bytes"
                    raise DemoFailed(message)
                seconds[name].append(result.seconds)
                progress.update()
    return seconds


def say_times(seconds: Mapping[str, list[float]], num_bytes: int) -> None:
    """Print the table: medians, extremes, and the median of each round's ratio to ours."""
    rows = [
        (
            COMPETITORS[name].title,
            seconds_text(statistics.median(times)),
            seconds_text(min(times)),
            seconds_text(max(times)),
            f"{num_bytes / statistics.median(times) / 1e9:.2f}",
            f"{ratio_to_ours(times, seconds[OURS]):.2f}",
        )
        for name, times in seconds.items()
    ]
    say_table(("", "median", "fastest", "slowest", "GB/s", "time / ours"), rows)


def ratio_to_ours(times: list[float], ours: list[float]) -> float:
    """Return the median of the ratios within each round: machines change from round to round."""
    return statistics.median(their / our for their, our in zip(times, ours, strict=True))


def compare_here(model: nn.Module, folder: Path, original: Mapping[str, torch.Tensor]) -> None:
    """Compare on `folder` in this process, after one unclocked run of each."""
    weights = {name: original[name] for name, _ in model.named_parameters()}
    checksum = sum_of_words(weights)
    num_bytes = sum(tensor.nbytes for tensor in weights.values())

    def run(name: str) -> Run:
        return clock(name, model, folder)

    alternate(run, 1, checksum)
    seconds = alternate(run, ROUNDS_HERE, checksum)
    say(f"{bytes_text(num_bytes)}, {ROUNDS_HERE} rounds in alternating order, one process")
    say_times(seconds, num_bytes)
    say(EXPLANATION)
    say("A small model, in a process that has imported transformers: there, gc.collect() after")
    say("each shard takes most of the rule's time. See `make bench` for real measurements.")


def compare_in_fresh_processes(size: int, folder: Path, checksum: int) -> None:
    """Compare on a generated checkpoint of `size` bytes, each run in a process of its own."""
    say(f"{bytes_text(size)}, {ROUNDS_IN_FRESH_PROCESSES} rounds in alternating order")

    def run(name: str) -> Run:
        return run_in_fresh_process(name, folder, size)

    say_times(alternate(run, ROUNDS_IN_FRESH_PROCESSES, checksum), size)
    say("Competitors as in step 6. Few rounds and warm files only: see `make bench` for more.")


def run_in_fresh_process(name: str, folder: Path, size: int) -> Run:
    """Start this file as a program for one run."""
    command = [sys.executable, __file__, name, str(folder), str(size)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if answer.returncode:
        message = f"the process of `{name}` ended with {answer.returncode}:\n{answer.stderr}"
        raise DemoFailed(message)
    return Run(**json.loads(answer.stdout))


def read_through(folder: Path) -> None:
    """Bring every file of a folder into the page cache."""
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK_BYTES):
                pass


def main() -> None:
    """Be the fresh process: build the model, warm the files, run once, print one line."""
    name, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    model = build_model(layout(size))
    read_through(folder)
    gc.collect()
    run = clock(name, model, folder)
    print(json.dumps({"seconds": run.seconds, "checksum": run.checksum}))


if __name__ == "__main__":
    main()
