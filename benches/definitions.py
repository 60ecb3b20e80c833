"""What a workload is: data, task, competitors and the states of the machine that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal[
    "fill",
    "read",
    "fresh",
    "forward",
    "columns",
    "walk",
    "plan",
    "import",
    "call",
    "save",
    "snapshot",
    "split",
    "pretrained",
]

COLD, WARM = "cold", "warm"  # The page cache holds none, or all, of the files that are read.
SYNCED = "synced"  # No file waits to be written when the clock starts.
TOUCHED = "touched"  # As much memory as is needed has been touched and freed a moment ago.
UNTOUCHED = "untouched"  # The machine's free memory has been left alone for some seconds.
UNCONTROLLED = "any"  # Nothing that this state decides matters.
STATES = (COLD, WARM, SYNCED, TOUCHED, UNTOUCHED, UNCONTROLLED)


@dataclass(frozen=True)
class Competitor:
    """One engine program with one setting, as it takes part in one workload.

    `setting`: what of it is not the default, in words for the results. `environment`: variables
    that are set for it. `package`: what has to be installed in the rivals' environment, in which
    it then runs. `suffix`: the kind of files that it reads. `python`: another environment's
    interpreter, from the top of the repository.
    """

    key: str
    title: str
    program: str
    variant: str = "default"
    setting: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    package: str | None = None
    suffix: str = ".safetensors"
    states: tuple[str, ...] | None = None  # None: all states of the workload.
    max_rounds: int | None = None
    python: str | None = None


@dataclass(frozen=True)
class Saving:
    """How a state dict is made and saved.

    `strided`: its matrices are transposed views. `saved_dtype`: floating-point tensors are cast on
    the way. `durable`: the call ends when all is on the disk. `over_existing`: the folder holds a
    checkpoint of the same names.
    """

    shard_bytes: int
    strided: bool = False
    saved_dtype: str | None = None
    durable: bool = False
    over_existing: bool = False


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
    saving: Saving | None = None

    def entrants(self, state: str) -> list[Competitor]:
        """Return those who take part in one state."""
        return [entrant for entrant in self.competitors if state in (entrant.states or self.states)]
