"""safetensors: `save_file` of each shard; where the files are narrower, everything cast before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.target_folder import sync_files
from safetensors.torch import save_file

from engines.protocol import parse_arguments
from engines.save_tasks import run_save

if TYPE_CHECKING:
    from engines.save_tasks import SaveJob


def save(job: SaveJob) -> None:
    """Save shard by shard; which tensor goes where is known before, and no index is written."""
    tensors = job.state_dict
    if job.dtype is not None:
        tensors = {name: tensor.to(job.dtype) for name, tensor in tensors.items()}
    for number, shard in enumerate(job.layout.shards):
        contents = {spec.name: tensors[spec.name] for spec in shard}
        save_file(contents, job.folder / job.layout.shard_file_name(number), {"format": "pt"})
    if job.saving.durable:
        sync_files(job.folder)


if __name__ == "__main__":
    run_save(save, parse_arguments())
