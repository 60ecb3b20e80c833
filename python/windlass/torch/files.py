"""`load_file`: a safetensors file as a dict of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.arrays import ArrayFile
from windlass.options import is_pread
from windlass.torch.tensors import ADAPTER, find_device

if TYPE_CHECKING:
    import torch

    from windlass.types import Cache, Io, Memory, PathLike, Progress


def load_file(
    filename: PathLike,
    device: str | int | torch.device = "cpu",
    *,
    memory: Memory = "mapped",
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    progress: Progress = None,
    strict_format: bool = False,
    backend: str = "mmap",
) -> dict[str, torch.Tensor]:
    """Load a safetensors file, as `safetensors.torch.load_file` does.

    Args:
        filename: the file.
        device: where the tensors go.
        memory: `"mapped"` (the default) returns at once: tensors look into a private map of the
            file, which is read when they are touched; writing to them leaves the file alone.
            `"owned"` reads everything now, on several threads, into memory of its own.
        threads: reader threads for `"owned"`, 16 by default: most of them wait for the disk.
        io: how `"owned"` bytes are fetched: `"auto"` (as suits file and machine), `"mapped"`,
            `"buffered"`, `"direct"`, past the page cache, or `"uring"`; see `windlass.types.Io`.
        cache: whether the page cache is to `"keep"` what is read for `"owned"`, or to `"drop"` all
            that was not in it before.
        progress: see `windlass.progress.track`.
        strict_format: also refuse what the format forbids and safetensors accepts.
        backend: safetensors' word for it: `"pread"` means `memory="owned"`, read and not mapped.

    Returns:
        Tensors by name, in the order of their bytes, each with a storage of its own.

    Raises:
        ShardNotFound: no such file.
        InvalidHeader: the file breaks the format.
        UnsupportedDtype: torch has no dtype for a tensor.

    Example:
        >>> load_file(folder / "model.safetensors")["embed.weight"].shape
        torch.Size([100, 16])
    """
    if is_pread(backend):
        memory, io = "owned", "buffered"
    target = find_device(device)
    file = ArrayFile(
        filename,
        ADAPTER,
        memory=memory,
        strict_format=strict_format,
        threads=threads,
        io=io,
        cache=cache,
    )
    loaded = file.get_all(progress)
    if target.type == "cpu":
        return loaded
    return {name: tensor.to(target) for name, tensor in loaded.items()}
