"""torch: `torch.save` of each shard as `.bin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from harness.target_folder import sync_files

from engines.protocol import parse_arguments
from engines.save_tasks import run_save

if TYPE_CHECKING:
    from engines.save_tasks import SaveJob


def save(job: SaveJob) -> None:
    """Save shard by shard; which tensor goes where is known before, and no index is written."""
    for number, shard in enumerate(job.layout.shards):
        contents = {spec.name: job.state_dict[spec.name] for spec in shard}
        torch.save(contents, job.folder / job.layout.shard_file_name(number, ".bin"))
    if job.saving.durable:
        sync_files(job.folder)


if __name__ == "__main__":
    run_save(save, parse_arguments(), suffix=".bin")
