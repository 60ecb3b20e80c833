"""`load_state_dict` of 4.46: one weights file, of either kind, as a state dict."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from windlass.arrays import ArrayFile
from windlass.errors import UnknownFormat
from windlass.torch.pickles import load_pickle
from windlass.torch.tensors import ADAPTER

if TYPE_CHECKING:
    from windlass.types import PathLike

#: What `format` in a file's metadata may say; weights of any of them are read as they are.
KNOWN_FORMATS = ("pt", "tf", "flax", "mlx")


def load_state_dict(
    checkpoint_file: PathLike,
    is_quantized: bool = False,  # noqa: FBT001, FBT002  (the signature that it replaces)
    map_location: str | torch.device | None = None,
    weights_only: bool = True,  # noqa: FBT001, FBT002
) -> dict[str, torch.Tensor] | Any:  # noqa: ANN401  (whatever a pickle holds)
    """Load a weights file: safetensors if its name says so, else a pickle of torch.

    Args:
        checkpoint_file: the file.
        is_quantized: has no effect.
        map_location: device for the tensors, of either kind of file; the CPU by default.
        weights_only: `False` lets a pickle run the code in it.

    Raises:
        ShardNotFound: there is no such file.
        UnknownFormat: metadata of a safetensors file name another framework. A file without
            metadata is read.
        InvalidHeader, InvalidPickle: the file is damaged, or none of its kind.

    Example:
        >>> load_state_dict(folder / "model.safetensors")["embed.weight"].shape
        torch.Size([100, 16])
    """
    del is_quantized
    path = os.fspath(checkpoint_file)
    if path.endswith(".safetensors"):
        return _moved(_load_safe(path), map_location)
    if weights_only:
        return _moved(load_pickle(path), map_location)
    mapped = map_location != "meta" and zipfile.is_zipfile(path)
    return torch.load(path, map_location=map_location or "cpu", weights_only=False, mmap=mapped)


def _load_safe(path: str) -> dict[str, torch.Tensor]:
    file = ArrayFile(path, ADAPTER)
    found = (file.table.shard_metadata(0) or {}).get("format", "pt")
    if found not in KNOWN_FORMATS:
        message = (
            f"`{path}`: expected weights of {', '.join(KNOWN_FORMATS)}, "
            f"found the format {found!r} in the metadata"
        )
        raise UnknownFormat(message)
    return file.get_all()


def _moved(state: dict[str, Any], place: str | torch.device | None) -> dict[str, Any]:
    if place is None or torch.device(place).type == "cpu":
        return state
    return {
        name: value.to(place) if isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }
