"""`apply_chunking_to_forward`: a layer applied to a piece of its input after the other."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def apply_chunking_to_forward(
    forward_fn: Callable[..., torch.Tensor],
    chunk_size: int,
    chunk_dim: int,
    *input_tensors: torch.Tensor,
) -> torch.Tensor:
    """Apply a function to chunks of its inputs, to have less in memory at a time.

    The result is that of the function itself if it does nothing across `chunk_dim`.

    Args:
        forward_fn: takes as many tensors as are given.
        chunk_size: length of a chunk; 0 for all at once.
        chunk_dim: the dimension to cut along, of all inputs and of the result.
        input_tensors: what it is applied to.

    Raises:
        ValueError: there are no inputs, or not as many as the function takes; they are not of one
            length, or this is no multiple of the chunk's.

    Example:
        >>> apply_chunking_to_forward(lambda x: x + 1, 2, 0, torch.zeros(4))
        tensor([1., 1., 1., 1.])
    """
    _check_count(forward_fn, len(input_tensors))
    if chunk_size <= 0:
        return forward_fn(*input_tensors)
    count = _count_chunks([tensor.shape[chunk_dim] for tensor in input_tensors], chunk_size)
    chunks = [tensor.chunk(count, dim=chunk_dim) for tensor in input_tensors]
    return torch.cat([forward_fn(*parts) for parts in zip(*chunks, strict=True)], dim=chunk_dim)


def _check_count(function: Callable[..., torch.Tensor], given: int) -> None:
    wanted = len(inspect.signature(function).parameters)
    if not given or wanted != given:
        message = (
            f"forward_fn: expected one or more tensors, and as many as it takes ({wanted}), "
            f"found {given}"
        )
        raise ValueError(message)


def _count_chunks(lengths: list[int], chunk_size: int) -> int:
    if len(set(lengths)) > 1:
        message = f"input_tensors: expected one length along chunk_dim, found {lengths}"
        raise ValueError(message)
    if lengths[0] % chunk_size:
        message = (
            f"chunk_size: expected a divisor of the length along chunk_dim, {lengths[0]}, "
            f"found {chunk_size}"
        )
        raise ValueError(message)
    return lengths[0] // chunk_size
