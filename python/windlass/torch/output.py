"""Tensors → staged files: what may be saved, and how its bytes get there.

CPU tensors are written by the engine: contiguous ones of the file's dtype from where they are,
others gathered and cast on the way. Tensors of other devices, and casts that the engine does not
know, go through one staging buffer of fixed size, into which torch's own `copy_` gathers, casts and
moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from windlass.errors import UnsupportedTensor
from windlass.quiet import paused_gc
from windlass.torch.dtypes import HEADER_DTYPES, header_shape
from windlass.torch.engine import cast_dtype, is_written
from windlass.torch.pieces import Piece, batches, new_staging, place
from windlass.torch.tensors import destination, has_its_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from windlass import _rust

#: Integer of each size, for moving bits without looking at them.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

#: Elements of a negated view that are copied before they are cast: 8 MiB at most.
_NEGATED_AT_ONCE = 1 << 20


class Placed(NamedTuple):
    """A tensor and the place that it is saved to.

    Attributes:
        file: position of the file in the save.
        name: name in the file.
        tensor: the values.
        dtype: dtype in the file.
    """

    file: int
    name: str
    tensor: torch.Tensor
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return self.tensor.numel() * self.dtype.itemsize

    def as_bits(self) -> torch.Tensor | None:
        """Return the tensor as integers, if copying it means moving bits and nothing else."""
        if self.tensor.dtype != self.dtype or self.tensor.is_conj() or self.tensor.is_neg():
            return None
        return self.tensor.view(_BITS[self.dtype.itemsize])


def plain_tensor(name: str, value: object) -> torch.Tensor:
    """Return a value as a plain tensor without gradient, over the same memory.

    Raises:
        UnsupportedTensor: it is none, or one that has no bytes to save.
    """
    if not isinstance(value, torch.Tensor):
        raise UnsupportedTensor(_unsupported(name, f"a {type(value).__name__}"))
    if is_lazy(value):
        raise UnsupportedTensor(_unsupported(name, "a lazy parameter without values yet"))
    if value.is_meta:
        raise UnsupportedTensor(_unsupported(name, "one on the meta device, without values"))
    if value.is_nested:
        raise UnsupportedTensor(_unsupported(name, "a nested one, whose rows differ in shape"))
    if value.layout is not torch.strided:
        raise UnsupportedTensor(_unsupported(name, f"a {value.layout} one"))
    if value.is_quantized:
        raise UnsupportedTensor(_unsupported(name, "a quantized one"))
    if type(value) is torch.Tensor:
        tensor = value.detach() if value.requires_grad else value
    else:
        tensor = _without_class(name, value)
    if tensor.dtype not in HEADER_DTYPES:
        raise UnsupportedTensor(_unsupported(name, f"{tensor.dtype}, unknown to the format"))
    if not has_its_memory(tensor):
        raise UnsupportedTensor(_unsupported(name, "one whose storage is freed, or made smaller"))
    return tensor


def _without_class(name: str, value: torch.Tensor) -> torch.Tensor:
    """Take a subclass off a tensor, unless the subclass is where the values are."""
    hollow = hasattr(value, "__tensor_flatten__")
    if not hollow:
        tensor = value.as_subclass(torch.Tensor).detach()
        hollow = tensor.numel() > 0 and not _has_memory(tensor)
    if hollow:
        kind = type(value).__name__
        raise UnsupportedTensor(_unsupported(name, f"a {kind}, whose values are elsewhere"))
    return tensor


def _has_memory(tensor: torch.Tensor) -> bool:
    try:
        is_real = tensor.untyped_storage().device.type != "meta"  # That of a fake tensor is not.
        return is_real and tensor.data_ptr() != 0
    except (NotImplementedError, RuntimeError):  # Wrappers and functional tensors have none.
        return False


def _unsupported(name: str, found: str) -> str:
    return f"tensor `{name}`: expected a dense tensor with values, found {found}"


def new_tensor(one: Placed) -> tuple[str, str, tuple[int, ...]]:
    """Return name, dtype and shape as the header has them.

    Raises:
        UnsupportedTensor: a packed dtype without a dimension to unpack.
    """
    dtype = HEADER_DTYPES[one.dtype]
    return one.name, dtype, header_shape(one.name, dtype, tuple(one.tensor.shape))


def write_tensors(
    save: _rust.Save,
    placed: Iterable[Placed],
    *,
    threads: int,
    tell: Callable[[int], object] | None,
) -> None:
    """Write every tensor to its place; `tell` is called with the bytes written so far."""
    ours: list[Placed] = []
    staged: list[Placed] = []
    for one in placed:
        (ours if is_written(one.tensor, one.dtype) else staged).append(one)
    if ours:
        with paused_gc():
            files, names = [one.file for one in ours], [one.name for one in ours]
            memory = [destination(one.tensor) for one in ours]
            dtypes = [cast_dtype(one.tensor, one.dtype) for one in ours]
        save.write(files, names, memory, dtypes=dtypes, threads=threads, progress=tell)
    done = sum(one.nbytes for one in ours)
    _write_staged(save, staged, threads, lambda count: tell(done + count) if tell else None)


def _write_staged(
    save: _rust.Save, staged: list[Placed], threads: int, tell: Callable[[int], object]
) -> None:
    files = {one.name: one.file for one in staged}
    staging: torch.Tensor | None = None
    done = 0
    for batch in batches(map(_piece, staged)):
        if staging is None:
            staging = new_staging()
        values = list(place(batch, staging))
        for piece, value in zip(batch, values, strict=True):
            copy_cast(value, piece.target)
        save.write(
            [files[piece.name] for piece in batch],
            [piece.name for piece in batch],
            list(map(destination, values)),
            [piece.start for piece in batch],
            threads=threads,
        )
        done += sum(piece.nbytes for piece in batch)
        tell(done)


def copy_cast(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy values, cast to the dtype of the target.

    Of a negated view torch's own `copy_` casts the values first and negates then, which 8-bit
    floats cannot, and which gives a lone infinity the wrong sign. Here it is negated first, part by
    part: a copy of all of it might be larger than all buffers.
    """
    if not source.is_neg() or source.dtype == target.dtype:
        target.copy_(source)
    elif source.numel() <= _NEGATED_AT_ONCE:
        target.copy_(source.resolve_neg())
    elif len(source) == 1:
        copy_cast(target[0], source[0])
    else:
        half = len(source) // 2
        copy_cast(target[:half], source[:half])
        copy_cast(target[half:], source[half:])


def _piece(one: Placed) -> Piece:
    bits = one.as_bits()
    source = one.tensor if bits is None else bits
    dtype = one.dtype if bits is None else bits.dtype
    return Piece(one.name, 0, tuple(source.shape), dtype, source)
