"""Where tensors lie in memory, and which of them touch: the few whose elements matter.

Ties of a model and aliases of a state dict both begin here: everything that touches nothing is
done with, at the price of a few calls a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.parameter import Parameter

from windlass import _rust

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Only tensors of these very types surely have addresses that mean something.
PLAIN = (torch.Tensor, Parameter)


class Spans(NamedTuple):
    """Address ranges of tensors, from the first element to the end of the last.

    A tensor of no elements and one of the meta device have an empty range, as an unplaced one has.

    Attributes:
        spaces: a number for the memory that the addresses belong to.
        starts: first address.
        ends: address after the last.
        unplaced: positions of tensors that have elements, but no address.
    """

    spaces: list[int]
    starts: list[int]
    ends: list[int]
    unplaced: list[int]

    def find_touching(self) -> list[list[int]]:
        """Return groups of positions whose ranges touch, ascending, by first position."""
        return _rust.find_touching(self.spaces, self.starts, self.ends)


def find_spans(tensors: Iterable[torch.Tensor]) -> Spans:
    """Locate tensors, without touching a byte of them."""
    spans = Spans([], [], [], [])
    numbers: dict[str, int] = {"cpu": 0}
    for position, tensor in enumerate(tensors):
        space = start = size = 0
        if not _is_plain(tensor):
            spans.unplaced.append(position)
        elif not tensor.is_meta and (size := _extent(tensor)):
            start = tensor.data_ptr()
            # Where a storage was freed, as FSDP does, an address is an offset from nothing.
            if start == tensor.storage_offset() * tensor.element_size():
                spans.unplaced.append(position)
                size = 0
            elif not tensor.is_cpu:
                space = numbers.setdefault(_memory(tensor), len(numbers))
        spans.spaces.append(space)
        spans.starts.append(start)
        spans.ends.append(start + size)
    return spans


def _is_plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in PLAIN and tensor.layout is torch.strided and not tensor.is_nested


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first to its last element."""
    if tensor.is_contiguous():  # As is every tensor of no elements.
        return tensor.nbytes
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((length - 1) * stride for length, stride in steps)
    return (last + 1) * tensor.element_size()


def _memory(tensor: torch.Tensor) -> str:
    """Name the memory that a tensor's addresses belong to: its device.

    On MPS an address is that of an object which stands for a storage, plus an offset: only within
    one storage do addresses have an order.
    """
    device = tensor.device
    storage = tensor.untyped_storage().data_ptr() if device.type == "mps" else 0
    return f"{device}/{storage}"
