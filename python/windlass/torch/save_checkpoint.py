"""`save_torch_state_dict`, `save_torch_model`: a state dict into one file, or shards."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import nn

from windlass import _rust
from windlass.errors import SaveFailed, SaveFolderNotFound
from windlass.index import encode_index
from windlass.layout import PICKLE_PATTERN, SAFE_PATTERN, Family, pattern_family, taken_before
from windlass.names import check_metadata
from windlass.options import check_options, check_timeout
from windlass.progress import check_progress, track
from windlass.quiet import paused_gc
from windlass.refusals import refusal, saving_to
from windlass.split import MAX_SHARD_SIZE, Measured, StateDictSplit, split_measured
from windlass.text_files import sync_folder
from windlass.torch.dropped import record_dropped
from windlass.torch.dtypes import check_cast
from windlass.torch.one_file import file_dtype, plain_tensors, without_texts, write_and_commit
from windlass.torch.output import Placed, new_tensor
from windlass.torch.save_pickles import pickled_bytes, pickled_values, write_pickle
from windlass.torch.shared import Keep, OnOverlap, check_keep, deduplicate
from windlass.torch.split import split_torch_state_dict_into_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from windlass.types import PathLike, Progress

logger = logging.getLogger(__name__)

#: How long a save waits for another one in the same folder, in seconds.
LOCK_TIMEOUT = 600.0

#: A file for the engine: `(name, tensors, metadata, checksums)`; its size instead of tensors where
#: somebody else writes it.
NewFile: TypeAlias = tuple[
    str, list[tuple[str, str, tuple[int, ...]]] | int, dict[str, str] | None, bool
]


class Settings(NamedTuple):
    """How a checkpoint is written; see `save_torch_state_dict`.

    `poll` is called while there is nothing to tell `progress`; what it raises ends the save.
    """

    durable: bool
    checksums: bool
    threads: int | None
    progress: Progress
    lock_timeout: float
    poll: Callable[[int], object] | None = None


def save_torch_state_dict(
    state_dict: Mapping[str, torch.Tensor],
    save_directory: PathLike,
    *,
    filename_pattern: str | None = None,
    force_contiguous: bool = True,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    metadata: Mapping[str, str] | None = None,
    safe_serialization: bool = True,
    is_main_process: bool = True,
    shared_tensors_to_discard: Iterable[str] | None = None,
    keep: Keep = "hub",
    on_overlap: OnOverlap = "store",
    dtype: torch.dtype | None = None,
    durable: bool = False,
    checksums: bool = False,
    threads: int | None = None,
    progress: Progress = None,
    lock_timeout: float = LOCK_TIMEOUT,
) -> None:
    """Save a state dict to a folder, as the hub's function of this name does, and crash-safe.

    The checkpoint that is there (single file, shards and index of the same pattern) is replaced
    whole or not at all: a reader finds the old one until the new one is complete, whenever it
    looks and wherever this process dies. Files of other names are not touched; a link in the place
    of a file is replaced, and what it leads to stays. Tied tensors are
    stored once; which names stand for which is told by the metadata of the file, or of the index.

    Args:
        state_dict: tensors by name; texts are left out. It is not changed.
        save_directory: the folder; it is made if it is not there.
        filename_pattern: file name with `{suffix}` where the number of a shard goes. By default
            `model{suffix}.safetensors`, or `pytorch_model{suffix}.bin` for pickles.
        force_contiguous: has no effect: tensors of any strides are saved.
        max_shard_size: largest file, as an int in bytes or text such as `"5GB"` or `"4.5 GiB"`;
            what is counted is what is written.
        metadata: text to be stored in the file, or in the index.
        safe_serialization: safetensors; `False` writes pickles of torch, in which ties stay: there
            `keep` and `threads` have no effect.
        is_main_process: `False` writes nothing.
        shared_tensors_to_discard: names that `keep` would rather not store.
        keep: which of several identical names is stored: `"hub"`, `"transformers"`, `"first"`, or
            names to prefer; see `windlass.torch.shared.deduplicate`.
        on_overlap: names that share memory without being identical: `"store"` each in full, and
            say so in the log, or `"error"`. Pickles keep all sharing.
        dtype: cast floating-point tensors on the way; not for pickles.
        durable: return only when everything is on the disk, in an order that a loss of power
            cannot break. Where it can, it goes there past the page cache: the next load reads
            from the disk.
        checksums: store a CRC-32C of every tensor, for `windlass.verify`; not for pickles.
        threads: writer threads; by default 4, or 16 (and no more) past the page cache.
        progress: see `windlass.progress.track`.
        lock_timeout: seconds to wait for another save in the folder. A lock left by a dead process
            holds nobody up, or for 90 seconds where the file system knows no locks.

    Raises:
        UnsupportedTensor, InvalidName, SharedTensors: the state dict cannot be saved.
        ValueError: a size or pattern that is none.
        FolderLocked: another save held the folder all the time.
        SaveFailed: the system refused; `NoSpaceLeft` if the new files do not fit beside the old;
            `TidyingFailed` if only what comes after the new checkpoint is in place was refused.

    Example:
        >>> save_torch_state_dict(model.state_dict(), folder / "new", max_shard_size="6.4KB")
        >>> sorted(file.name for file in (folder / "new").iterdir())[-1]
        'model.safetensors.index.json'
    """
    with saving_to(save_directory):
        prepared = prepare(
            state_dict,
            filename_pattern=filename_pattern,
            force_contiguous=force_contiguous,
            max_shard_size=max_shard_size,
            metadata=metadata,
            safe_serialization=safe_serialization,
            shared_tensors_to_discard=shared_tensors_to_discard,
            keep=keep,
            on_overlap=on_overlap,
            dtype=dtype,
            durable=durable,
            checksums=checksums,
            threads=threads,
            progress=progress,
            lock_timeout=lock_timeout,
        )
    if is_main_process:
        prepared.write(save_directory)


class Prepared(NamedTuple):
    """A checkpoint that can be saved: everything about it has been checked.

    Attributes:
        family: the names of its files.
        split: what goes into which file.
        metadata: text for the file, or for the index.
        dropped: name that is not stored → the identical one that is.
        contents: tensors and their places, or for pickles the state dict itself.
        settings: how to write it.
    """

    family: Family
    split: StateDictSplit
    metadata: dict[str, str]
    dropped: dict[str, str]
    contents: list[Placed] | dict[str, torch.Tensor]
    settings: Settings

    def write(self, folder: PathLike) -> None:
        """Save it to a folder."""
        if isinstance(self.contents, dict):
            _save_pickles(self, self.contents, folder)
        else:
            _save_safetensors(self, self.contents, folder)


def prepare(
    state_dict: Mapping[str, torch.Tensor],
    *,
    filename_pattern: str | None = None,
    force_contiguous: bool = True,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    metadata: Mapping[str, str] | None = None,
    safe_serialization: bool = True,
    shared_tensors_to_discard: Iterable[str] | None = None,
    keep: Keep = "hub",
    on_overlap: OnOverlap = "store",
    dtype: torch.dtype | None = None,
    durable: bool = False,
    checksums: bool = False,
    threads: int | None = None,
    progress: Progress = None,
    lock_timeout: float = LOCK_TIMEOUT,
) -> Prepared:
    """Check and plan a save, as `save_torch_state_dict` describes it, without writing anything."""
    del force_contiguous
    check_keep(keep, on_overlap)
    check_cast(dtype)
    check_options(threads=threads)
    check_timeout(lock_timeout)
    check_progress(progress)
    settings = Settings(durable, checksums, threads, progress, lock_timeout)
    told = check_metadata(metadata) or {}
    pattern = filename_pattern or (SAFE_PATTERN if safe_serialization else PICKLE_PATTERN)
    family = pattern_family(pattern)
    if not safe_serialization:
        if dtype is not None or checksums or on_overlap != "store":
            message = "dtype, checksums and on_overlap are for safetensors, not for pickles"
            raise ValueError(message)
        values = pickled_values(without_texts(state_dict))
        split = split_torch_state_dict_into_shards(
            values, filename_pattern=pattern, max_shard_size=max_shard_size
        )
        return Prepared(family, split, told, {}, values, settings)
    with paused_gc():
        stored, dropped = deduplicate(
            plain_tensors(without_texts(state_dict)),
            keep=keep,
            discard=shared_tensors_to_discard or (),
            on_overlap=on_overlap,
        )
        placed = [Placed(0, name, one, file_dtype(one, dtype)) for name, one in stored.items()]
        # Tensors without elements share the storage that is none, as the hub sees it.
        items = [(size, None if size else 0) for size in (one.nbytes for one in placed)]
        measured = Measured(list(stored), items)
        split = split_measured(measured, pattern, max_shard_size, "hub")
        return Prepared(family, split, told, dropped, placed, settings)


def save_torch_model(
    model: nn.Module,
    save_directory: PathLike,
    *,
    filename_pattern: str | None = None,
    force_contiguous: bool = True,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    metadata: Mapping[str, str] | None = None,
    safe_serialization: bool = True,
    is_main_process: bool = True,
    shared_tensors_to_discard: Iterable[str] | None = None,
    keep: Keep = "hub",
    on_overlap: OnOverlap = "store",
    dtype: torch.dtype | None = None,
    durable: bool = False,
    checksums: bool = False,
    threads: int | None = None,
    progress: Progress = None,
    lock_timeout: float = LOCK_TIMEOUT,
) -> None:
    """Save a model to a folder, as the hub's function of this name does.

    Arguments and errors are those of `save_torch_state_dict`.

    Example:
        >>> from windlass.torch import load_torch_model
        >>> save_torch_model(model, folder / "again")
        >>> load_torch_model(model, folder / "again", strict=True)
        <All keys matched successfully>
    """
    if not isinstance(model, nn.Module):
        message = f"model should be a torch.nn.Module, found {type(model).__name__}"
        raise TypeError(message)
    save_torch_state_dict(
        model.state_dict(),
        save_directory,
        filename_pattern=filename_pattern,
        force_contiguous=force_contiguous,
        max_shard_size=max_shard_size,
        metadata=metadata,
        safe_serialization=safe_serialization,
        is_main_process=is_main_process,
        shared_tensors_to_discard=shared_tensors_to_discard,
        keep=keep,
        on_overlap=on_overlap,
        dtype=dtype,
        durable=durable,
        checksums=checksums,
        threads=threads,
        progress=progress,
        lock_timeout=lock_timeout,
    )


def _save_safetensors(prepared: Prepared, placed: list[Placed], folder: PathLike) -> None:
    family, split, metadata, dropped, _, settings = prepared
    with paused_gc():
        names = list(split.filename_to_tensors) or [family.single]
        numbers = {name: number for number, name in enumerate(names)}
        homes = {name: numbers[file] for name, file in split.tensor_to_filename.items()}
        placed = [Placed(homes[name], name, tensor, dtype) for _, name, tensor, dtype in placed]
        tensors: list[list[tuple[str, str, tuple[int, ...]]]] = [[] for _ in names]
        for one in placed:
            tensors[one.file].append(new_tensor(one))
        told = {"format": "pt"}
        if not split.is_sharded:
            told = record_dropped({**told, **metadata}, dropped, split.tensor_to_filename)
        files = [
            (name, new, told, settings.checksums) for name, new in zip(names, tensors, strict=True)
        ]
        parameters = sum(one.tensor.numel() for one in placed)
        facts = {**split.metadata, "total_parameters": parameters, **metadata}
        facts = record_dropped(facts, dropped, split.tensor_to_filename)
    with begin(folder, family, files, settings) as saving:
        write_and_commit(
            saving,
            placed,
            threads=settings.threads,
            progress=settings.progress,
            indexes=make_indexes(saving, split, facts),
        )


def _save_pickles(prepared: Prepared, values: dict[str, torch.Tensor], folder: PathLike) -> None:
    family, split, metadata, _, _, settings = prepared
    shards = split.filename_to_tensors or {family.single: []}
    files = [{name: values[name] for name in names} for names in shards.values()]
    sizes = [pickled_bytes(file.values()) for file in files]
    new: list[NewFile] = [
        (name, size, None, False) for name, size in zip(shards, sizes, strict=True)
    ]
    with begin(folder, family, new, settings) as saving:
        with track(sum(sizes), settings.progress, verb="writing") as tell:
            done = 0
            for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
                write_pickle(file, saving.staged_path(number), _part_of(tell, done, size))
                done += size
        saving.commit(*make_indexes(saving, split, {**split.metadata, **metadata}))


def _part_of(
    tell: Callable[[int], object] | None, done: int, size: int
) -> Callable[[int], object] | None:
    """Progress of one file of many: `done` bytes were written before it.

    What is in a file besides tensors is not counted.
    """
    return None if tell is None else lambda count: tell(done + min(count, size))


def begin(
    folder: PathLike, family: Family, files: Sequence[NewFile], settings: Settings
) -> _rust.Save:
    """Begin to replace the checkpoint of a family in a folder, which is made if it is not there."""
    folder = os.fspath(folder)
    make_folder(folder, durable=settings.durable)
    _warn_if_hidden(folder, family)
    return _rust.Save.folder(
        folder,
        family,
        files,
        durable=settings.durable,
        lock_timeout=settings.lock_timeout,
        poll=settings.poll,
    )


def make_folder(folder: str, *, durable: bool) -> None:
    """Make a folder and those above it; if `durable`, wait until their names are on the disk.

    Raises:
        SaveFailed: the system refused.
    """
    above, made = os.path.abspath(folder), []
    while not os.path.lexists(above):
        above = os.path.dirname(above)
        made.append(above)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise _no_folder(folder, error) from error
    for parent in made if durable else ():
        sync_folder(parent)


def _warn_if_hidden(folder: str, family: Family) -> None:
    """Say that nobody will find pickles by their usual names beside safetensors of these."""
    name = taken_before(folder, family)
    if name is not None:
        logger.warning(
            "`%s`: readers take `%s`, which is there, and not the pickles that are being saved: "
            "remove it, or load with prefer_safe=False or use_safetensors=False",
            folder,
            name,
        )


def _no_folder(folder: str, error: OSError) -> SaveFailed:
    """Return what to raise when a folder cannot be made."""
    what = "the folder cannot be made"
    if isinstance(error, FileExistsError) and os.path.islink(folder):
        reason = f"it is a link to `{os.readlink(folder)}`"
        return refusal(folder, what, error, kind=SaveFolderNotFound, reason=reason)
    if isinstance(error, FileExistsError):
        return refusal(folder, what, error, reason="it is not a folder")
    return refusal(folder, what, error)


def make_indexes(
    saving: _rust.Save, split: StateDictSplit, metadata: Mapping[str, object]
) -> tuple[bytes, bytes]:
    """Return the index as it is while files are being put in place, and as it stays."""
    work = saving.work_name()
    interim = {name: f"{work}/{file}" for name, file in split.tensor_to_filename.items()}
    return encode_index(interim, metadata), encode_index(split.tensor_to_filename, metadata)
