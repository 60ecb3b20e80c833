"""The tasks of engines that save: save a state dict, copy it for later, split it into shards."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from checkpoints.families import build_layout
from checkpoints.files import SEED, write_checkpoint
from checkpoints.layout import Layout, resplit
from checkpoints.states import blank_state_dict, read_state_dict
from harness.target_folder import empty_target

from engines.proof import ProofError, verify_copy, verify_saved
from engines.protocol import PLAN_FRESH_BYTES, Arguments, emit, ready_to_write, run_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from definitions import Saving

StateDict = dict[str, torch.Tensor]
OLD_SEED = SEED + 1  # The checkpoint that is replaced has other weights.
# Pages for the new files, and for the copy that some competitors make.
FRESH_SHARE = 2


@dataclass(frozen=True)
class SaveJob:
    """What to save, where to, and how; `layout` says which tensor belongs in which file."""

    state_dict: StateDict
    folder: Path
    layout: Layout
    saving: Saving

    @property
    def dtype(self) -> torch.dtype | None:
        """What floating-point tensors are cast to."""
        return saved_dtype(self.saving)


def saving_of(arguments: Arguments) -> Saving:
    """Return how the workload saves.

    Raises:
        ValueError: it does not.
    """
    saving = arguments.workload.saving
    if saving is None:
        message = f"{arguments.workload.name} does not save"
        raise ValueError(message)
    return saving


def saved_dtype(saving: Saving) -> torch.dtype | None:
    """Return the dtype of the files, if it is another than the tensors'."""
    dtype: torch.dtype | None = getattr(torch, saving.saved_dtype or "", None)
    return dtype


def ready_target(arguments: Arguments, layout: Layout) -> Path:
    """Return the target folder: empty, or with an older checkpoint of that layout."""
    target = empty_target(arguments.folder)
    if saving_of(arguments).over_existing:
        write_checkpoint(layout, target, OLD_SEED)
    return target


def fresh_bytes(layout: Layout) -> int:
    """Bytes of memory to touch and free before a save of that layout."""
    return FRESH_SHARE * sum(tensor.num_bytes for tensor in layout.tensors)


def run_save(
    save: Callable[[SaveJob], object], arguments: Arguments, suffix: str = ".safetensors"
) -> None:
    """Time `save(job)` with a state dict whose memory is touched, and prove the files."""
    job = _job(arguments)
    gc.collect()
    touched = ready_to_write(arguments, fresh_bytes(job.layout))
    _, measurement = run_clock(lambda: save(job), touched)
    facts = verify_saved(job.state_dict, job.folder, suffix, job.dtype)
    empty_target(arguments.folder)
    emit(measurement, **facts)


def run_snapshot(
    take: Callable[[SaveJob], Callable[[], StateDict | None]], arguments: Arguments
) -> None:
    """Time `take(job)`, after which its caller may change the tensors.

    What `take` returns is called after the clock: it waits for the files, or returns the copies.
    """
    job = _job(arguments)
    gc.collect()
    touched = ready_to_write(arguments, fresh_bytes(job.layout))
    finish, measurement = run_clock(lambda: take(job), touched)
    copies = finish()
    if copies is None:
        verify_saved(job.state_dict, job.folder, ".safetensors", job.dtype)
    else:
        verify_copy(job.state_dict, copies)
    empty_target(arguments.folder)
    num_bytes = sum(tensor.nbytes for tensor in job.state_dict.values())
    emit(measurement, bytes=num_bytes, proof="every tensor equal")


def run_split(
    split: Callable[[StateDict, int], Mapping[str, list[str]]], arguments: Arguments
) -> None:
    """Time `split(state_dict, shard_bytes)`, which returns the names in each file."""
    shard_bytes = saving_of(arguments).shard_bytes
    layout = resplit(build_layout(arguments.workload.layout), shard_bytes)
    state_dict = blank_state_dict(layout)
    gc.collect()
    touched = ready_to_write(arguments, PLAN_FRESH_BYTES)
    shards, measurement = run_clock(lambda: split(state_dict, shard_bytes), touched)
    expected = [[spec.name for spec in shard] for shard in layout.shards]
    if list(shards.values()) != expected:
        message = "the shards differ from those of the naive split"
        raise ProofError(message)
    emit(measurement, tensors=len(state_dict), shards=len(expected), proof="every name in place")


def _job(arguments: Arguments) -> SaveJob:
    workload, saving = arguments.workload, saving_of(arguments)
    layout = resplit(build_layout(workload.layout), saving.shard_bytes)
    dtype: torch.dtype | None = getattr(torch, workload.model_dtype or "", None)
    state_dict = read_state_dict(layout, arguments.folder, dtype, strided=saving.strided)
    return SaveJob(state_dict, ready_target(arguments, layout), layout, saving)
