"""windlass: `save_torch_state_dict`, `save_async`, and the aliases and split of a state dict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.torch import (
    find_aliases,
    save_async,
    save_torch_state_dict,
    split_torch_state_dict_into_shards,
)

from engines.protocol import parse_arguments
from engines.save_tasks import run_save, run_snapshot, run_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.save_tasks import SaveJob, StateDict


def save(job: SaveJob) -> None:
    """Save all shards and the index."""
    save_torch_state_dict(
        job.state_dict,
        job.folder,
        max_shard_size=job.saving.shard_bytes,
        dtype=job.dtype,
        durable=job.saving.durable,
    )


def take(job: SaveJob) -> Callable[[], None]:
    """Begin a save in the background."""
    handle = save_async(job.state_dict, job.folder, max_shard_size=job.saving.shard_bytes)
    return handle.result


def split(state_dict: StateDict, shard_bytes: int) -> Mapping[str, list[str]]:
    """Find aliases and split: all that a save does before it writes."""
    find_aliases(state_dict)
    found = split_torch_state_dict_into_shards(state_dict, max_shard_size=shard_bytes)
    return found.filename_to_tensors


def main() -> None:
    """Run the task that the workload names."""
    arguments = parse_arguments()
    if arguments.workload.task == "split":
        run_split(split, arguments)
    elif arguments.workload.task == "snapshot":
        run_snapshot(take, arguments)
    else:
        run_save(save, arguments)


if __name__ == "__main__":
    main()
