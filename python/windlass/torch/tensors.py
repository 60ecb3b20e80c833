"""Tensors ↔ memory: views into a mapped file, empty tensors, destinations for the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils import dlpack

from windlass.arrays import Adapter
from windlass.memory import memory_for
from windlass.torch.dtypes import HEADER_DTYPES, torch_layout

if TYPE_CHECKING:
    from typing_extensions import CapsuleType

    from windlass import _rust
    from windlass.tensor_info import TensorInfo

#: What torch before 2.9 does not put into a capsule.
_SMALL_FLOATS = frozenset(
    dtype for dtype in HEADER_DTYPES if dtype.itemsize == 1 and dtype.is_floating_point
)


def view(name: str, info: TensorInfo, mapping: _rust.Mapping) -> torch.Tensor:
    """Return a tensor over the mapped bytes, with a storage of its own.

    A tensor that does not begin at a multiple of its element size is copied: the format allows
    such files, torch's kernels do not expect them.
    """
    dtype, shape = torch_layout(name, info.dtype, info.shape)
    start, end = info.file_range
    if start == end:
        return torch.empty(shape, dtype=dtype, device="cpu")
    if not is_aligned(dtype, start):
        flat = torch.frombuffer(mapping, dtype=torch.uint8, count=end - start, offset=start)
        with memory_for(f"tensor `{name}`"):
            return flat.clone().view(dtype).view(shape)
    count = (end - start) // dtype.itemsize
    return torch.frombuffer(mapping, dtype=dtype, count=count, offset=start).view(shape)


def is_aligned(dtype: torch.dtype, start: int) -> bool:
    """Whether what begins at that byte of a file can be looked at as tensor, without a copy."""
    return start % dtype.itemsize == 0


def empty(name: str, info: TensorInfo) -> torch.Tensor:
    """Return an uninitialised tensor of the dtype and shape in the file."""
    dtype, shape = torch_layout(name, info.dtype, info.shape)
    return new_tensor(f"tensor `{name}`", shape, dtype)


def new_tensor(what: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return an uninitialised tensor in host memory.

    Raises:
        NotEnoughMemory: there is none for it; `what` it was for.
    """
    with memory_for(what):
        return torch.empty(shape, dtype=dtype, device="cpu")


def has_its_memory(tensor: torch.Tensor) -> bool:
    """Whether a plain tensor's storage holds all of its elements: FSDP, for one, frees storages."""
    if tensor.is_contiguous():
        end = tensor.storage_offset() + tensor.numel()
        return (
            end * tensor.element_size() <= tensor.untyped_storage().nbytes() or not tensor.numel()
        )
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    end = tensor.storage_offset() + 1 + sum((length - 1) * stride for length, stride in steps)
    return not tensor.numel() or end * tensor.element_size() <= tensor.untyped_storage().nbytes()


def destination(tensor: torch.Tensor) -> CapsuleType:
    """Return a CPU tensor's memory as a DLPack capsule.

    Unlike `Tensor.numpy()`, this leaves the storage resizable, which FSDP needs it to be.
    """
    if tensor.dtype in _SMALL_FLOATS:
        tensor = tensor.detach().view(torch.uint8)
    capsule: CapsuleType = dlpack.to_dlpack(tensor)  # type: ignore[attr-defined]
    return capsule


def find_device(device: str | int | torch.device) -> torch.device:
    """Return the device of that name or number.

    Raises:
        ValueError: torch knows no such device.
    """
    try:
        return torch.device(device)
    except RuntimeError as error:
        message = f"device {device!r} is not one that torch knows"
        raise ValueError(message) from error


#: torch, as `windlass.arrays` sees it.
ADAPTER: Adapter[torch.Tensor] = Adapter(view, empty, destination, torch.clone)
