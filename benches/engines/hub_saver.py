"""huggingface_hub: `save_torch_state_dict`, or the split alone.

Its first save or split in a process imports `torch.distributed.tensor` and `safetensors`, which
takes seconds; imports are not what is measured, so here it finds both imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import safetensors.torch  # noqa: F401
import torch.distributed.tensor  # noqa: F401
from harness.target_folder import sync_files
from huggingface_hub import save_torch_state_dict, split_torch_state_dict_into_shards

from engines.protocol import parse_arguments
from engines.save_tasks import run_save, run_split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.save_tasks import SaveJob, StateDict


def save(job: SaveJob) -> None:
    """Save all shards and the index."""
    save_torch_state_dict(job.state_dict, job.folder, max_shard_size=job.saving.shard_bytes)
    if job.saving.durable:
        sync_files(job.folder)


def split(state_dict: StateDict, shard_bytes: int) -> Mapping[str, list[str]]:
    """Split; the hub offers no public way to find aliases."""
    found = split_torch_state_dict_into_shards(state_dict, max_shard_size=shard_bytes)
    shards: dict[str, list[str]] = found.filename_to_tensors
    return shards


def main() -> None:
    """Run the task that the workload names."""
    arguments = parse_arguments()
    if arguments.workload.task == "split":
        run_split(split, arguments)
    else:
        run_save(save, arguments)


if __name__ == "__main__":
    main()
