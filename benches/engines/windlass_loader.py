"""windlass: `load_sharded_checkpoint`, `load_file` (mapped or owned), `Checkpoint` and its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import windlass

from engines.protocol import parse_arguments
from engines.tasks import run_columns, run_fill, run_plan, run_read

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch

    from engines.proof import Columns


def open_and_plan(folder: Path) -> Iterable[str]:
    """Open a checkpoint and plan the reads of all its tensors."""
    checkpoint = windlass.Checkpoint(folder)
    checkpoint.plan()
    return checkpoint


def load_columns(folder: Path, columns: Columns) -> dict[str, torch.Tensor]:
    """Read the first columns of each tensor."""
    return windlass.Checkpoint(folder).load(
        {name: (..., slice(count)) for name, count in columns.items()}
    )


def main() -> None:
    """Run the task that the workload names."""
    arguments = parse_arguments()
    if arguments.workload.task == "plan":
        run_plan(open_and_plan, arguments)
    elif arguments.workload.task == "columns":
        run_columns(load_columns, arguments)
    elif arguments.workload.task == "read":
        load_file = windlass.load_file
        memory: Literal["mapped", "owned"] = "owned" if arguments.variant == "owned" else "mapped"
        run_read(lambda path: load_file(path, memory=memory), arguments, memory)
    else:
        run_fill(windlass.load_sharded_checkpoint, arguments)


if __name__ == "__main__":
    main()
