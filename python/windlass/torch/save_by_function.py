"""Pickles written by a function of the caller, and committed as those of `torch.save` are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass.errors import SaveFailed
from windlass.opening import identity
from windlass.torch.save_checkpoint import begin, make_indexes
from windlass.torch.save_pickles import pickled_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass.torch.save_checkpoint import NewFile, Prepared
    from windlass.types import PathLike


def write_by_function(
    prepared: Prepared, folder: PathLike, save_function: Callable[..., object]
) -> None:
    """Save pickles to a folder, each file by a call `save_function(tensors, path)`.

    The path is not that of the file that readers find: the file is moved there when all are whole.

    Raises:
        SaveFailed: the system refused, or the function wrote no file.
    """
    values: Any = prepared.contents
    shards = prepared.split.filename_to_tensors or {prepared.family.single: []}
    files = [{name: values[name] for name in names} for names in shards.values()]
    new: list[NewFile] = [
        (name, pickled_bytes(file.values()), None, False)
        for name, file in zip(shards, files, strict=True)
    ]
    with begin(folder, prepared.family, new, prepared.settings) as saving:
        for number, file in enumerate(files):
            path = saving.staged_path(number)
            reserved = identity(path)
            save_function(file, path)
            if identity(path) in (None, reserved):
                message = f"`{path}`: save_function was to write this file, and did not"
                raise SaveFailed(message)
        facts = {**prepared.split.metadata, **prepared.metadata}
        saving.commit(*make_indexes(saving, prepared.split, facts))
