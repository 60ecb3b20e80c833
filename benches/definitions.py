"""What a workload is: data, task, competitors and the states of the machine that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["fill", "read", "plan", "import", "call"]

COLD, WARM = "cold", "warm"  # The page cache holds none, or all, of the files that are read.
UNCONTROLLED = "any"  # Nothing that this state decides matters.
STATES = (COLD, WARM, UNCONTROLLED)


@dataclass(frozen=True)
class Competitor:
    """One engine program with one setting, as it takes part in one workload."""

    key: str
    title: str
    program: str
    variant: str = "default"
    suffix: str = ".safetensors"
    states: tuple[str, ...] | None = None  # None: all states of the workload.
    max_rounds: int | None = None


@dataclass(frozen=True)
class Workload:
    """One thing that is measured; `baseline` is the competitor that ratios are taken against."""

    name: str
    title: str
    task: Task
    layout: str
    competitors: tuple[Competitor, ...]
    baseline: str = "windlass"
    states: tuple[str, ...] = (COLD, WARM)
    model_dtype: str | None = None
