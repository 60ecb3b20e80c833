"""windlass: `load_sharded_checkpoint`, `load_file` (mapped or owned), `Checkpoint` and its plan."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import windlass

from engines.protocol import parse_arguments
from engines.tasks import (
    run_columns,
    run_fill,
    run_forward,
    run_fresh,
    run_plan,
    run_read,
    run_walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import torch

    from engines.proof import Columns
    from engines.protocol import Arguments

    Read = Callable[[list[Path]], dict[str, torch.Tensor]]
    AnyLoad = Callable[..., dict[str, torch.Tensor]]


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


def file_by_file(load: Callable[[Path], dict[str, torch.Tensor]]) -> Read:
    """Return what loads each file by itself."""

    def read(paths: list[Path]) -> dict[str, torch.Tensor]:
        loaded: dict[str, torch.Tensor] = {}
        for path in paths:
            loaded |= load(path)
        return loaded

    return read


def load_checkpoint(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Read every tensor of all files at once."""
    return windlass.Checkpoint(paths[0].parent).load()


def walk(folder: Path, variant: str) -> Iterable[tuple[str, torch.Tensor]]:
    """Give each tensor, read one after the other or all at once."""
    checkpoint = windlass.Checkpoint(folder)
    return checkpoint.load().items() if variant == "owned" else checkpoint.stream()


READERS: dict[str, Read] = {
    "default": load_checkpoint,
    "owned": file_by_file(partial(windlass.load_file, memory="owned")),
    "mapped": file_by_file(windlass.load_file),
    "prefetch": file_by_file(partial(cast("AnyLoad", windlass.load_file), prefetch=True)),
}


def fill(arguments: Arguments) -> None:
    """Fill a model, with as many threads as the variant `threads-N` says."""
    load = windlass.load_sharded_checkpoint
    _, _, threads = arguments.variant.partition("threads-")
    run_fill(partial(load, threads=int(threads)) if threads else load, arguments)


def main() -> None:
    """Run the task that the workload names."""
    arguments = parse_arguments()
    task, variant = arguments.workload.task, arguments.variant
    if task == "plan":
        run_plan(open_and_plan, arguments)
    elif task == "walk":
        run_walk(partial(walk, variant=variant), arguments)
    elif task == "columns":
        run_columns(load_columns, arguments)
    elif task == "fresh":
        run_fresh(READERS[variant], arguments)
    elif task == "forward":
        run_forward(READERS[variant], arguments)
    elif task == "read":
        memory = cast('Literal["mapped", "owned"]', variant)
        run_read(lambda path: windlass.load_file(path, memory=memory), arguments, memory)
    else:
        fill(arguments)


if __name__ == "__main__":
    main()
