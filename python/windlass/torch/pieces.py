"""Tensors cut to pieces that fit into a staging buffer, each one range of bytes in a file.

A tensor that the engine does not read or write itself (see `engine.py`) goes through a buffer of
fixed size, between which and the tensor torch's own `copy_` casts, gathers, scatters and moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from windlass.torch.tensors import new_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Size of the staging buffer, in bytes: small enough to stay far below 64 MiB, large enough that
#: a read or write by several threads is worth its start.
STAGING_BYTES = 16 << 20

#: Pieces begin at multiples of this within the staging buffer, in bytes: torch's own alignment.
_ALIGNMENT = 64


class Piece(NamedTuple):
    """Part of a tensor that is one contiguous range of its bytes in the file.

    Attributes:
        name: the tensor.
        start: first byte, from the start of the tensor in the file.
        shape: shape of the part.
        dtype: dtype in the file.
        target: the part in memory, of any dtype, strides and device.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    target: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return self.target.numel() * self.dtype.itemsize


def new_staging() -> torch.Tensor:
    """Return a staging buffer."""
    return new_tensor("staging buffer", (STAGING_BYTES,), torch.uint8)


def batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Cut pieces to size, and yield lists of those that fit into the staging buffer together."""
    batch: list[Piece] = []
    room = STAGING_BYTES
    for whole in pieces:
        for piece in _split(whole):
            size = _aligned(piece.nbytes)
            if size > room:
                yield batch
                batch, room = [], STAGING_BYTES
            batch.append(piece)
            room -= size
    if batch:
        yield batch


def place(
    batch: list[Piece], staging: torch.Tensor, dtypes: Iterable[torch.dtype] | None = None
) -> Iterator[torch.Tensor]:
    """Yield a tensor for each piece, side by side in the staging buffer.

    Its dtype is that of the file, or the one in `dtypes`, whose elements are no larger.
    """
    offset = 0
    for piece, dtype in zip(batch, dtypes or (one.dtype for one in batch), strict=True):
        nbytes = piece.target.numel() * dtype.itemsize
        yield staging[offset : offset + nbytes].view(dtype).view(piece.shape)
        offset += _aligned(nbytes)


def _split(piece: Piece) -> Iterator[Piece]:
    """Cut a piece along its outermost dimensions until each part fits."""
    if piece.nbytes <= STAGING_BYTES:
        if piece.nbytes:
            yield piece
        return
    name, start, shape, dtype, target = piece
    row_bytes = piece.nbytes // shape[0]
    rows = max(1, STAGING_BYTES // row_bytes)
    for first in range(0, shape[0], rows):
        count = min(rows, shape[0] - first)
        part_start = start + first * row_bytes
        if row_bytes > STAGING_BYTES:
            yield from _split(Piece(name, part_start, shape[1:], dtype, target[first]))
        else:
            part = target.narrow(0, first, count)
            yield Piece(name, part_start, (count, *shape[1:]), dtype, part)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
