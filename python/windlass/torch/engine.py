"""Which tensors the engine reads and writes itself: those of the host that it understands.

Contiguous ones of the file's dtype are moved as they are; others are cast, gathered and scattered
by the engine's threads, with the results of torch's own `copy_`.
"""

from __future__ import annotations

from functools import cache

import torch

from windlass import _rust
from windlass.torch.dtypes import HEADER_DTYPES


def is_read(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the engine reads a tensor of that dtype in the file into this one."""
    if not _is_plain(tensor):
        return False
    if tensor.is_contiguous():
        return tensor.dtype == dtype or casts(dtype, tensor.dtype)
    return casts(dtype, tensor.dtype) and _is_distinct(tensor)


def is_written(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the engine writes this tensor into one of that dtype in the file."""
    if not _is_plain(tensor):
        return False
    return (tensor.dtype == dtype and tensor.is_contiguous()) or casts(tensor.dtype, dtype)


def cast_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> str | None:
    """Name the tensor's dtype as the header does; `None` if its bytes are those of the file."""
    is_same = tensor.dtype == dtype and tensor.is_contiguous()
    return None if is_same else HEADER_DTYPES[tensor.dtype]


@cache
def casts(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether the engine casts one dtype to the other as torch does."""
    names = HEADER_DTYPES.get(found), HEADER_DTYPES.get(wanted)
    if names[0] is None or names[1] is None or not _rust.can_cast(names[0], names[1]):
        return False
    return found == wanted or wanted != torch.float8_e4m3fn or _saturates()


def _is_plain(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_cpu and not tensor.is_conj() and not tensor.is_neg())


def _saturates() -> bool:
    """Whether torch makes the largest number of what is too large for F8_E4M3, as the engine does.

    Before 2.13 it made that NaN.
    """
    large = torch.tensor(1e6, device="cpu").to(torch.float8_e4m3fn)
    return large.item() == torch.finfo(torch.float8_e4m3fn).max


def _is_distinct(tensor: torch.Tensor) -> bool:
    """Whether each step leads over all that the smaller ones reach: no two elements are one."""
    reached = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1 and stride < reached:
            return False
        reached += stride * (length - 1)
    return True
