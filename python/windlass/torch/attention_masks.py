"""Masks of attention and heads, in the shapes and dtypes that scores are added to (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Dimensions of a mask of positions, and of one of pairs of positions.
PER_BATCH, PER_QUERY = 2, 3
_HEAD_MASK_DIM = 5


def invert(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to scores: 0 where the mask is 1, the dtype's least where it is 0."""
    return (1.0 - mask.to(dtype=dtype)) * torch.finfo(dtype).min


def spread_over_heads(mask: torch.Tensor) -> torch.Tensor:
    """Return a mask `[batch, to]` or `[batch, from, to]` with the dimensions that it lacks.

    Raises:
        ValueError: it has other dimensions.
    """
    if mask.dim() == PER_QUERY:
        return mask[:, None, :, :]
    if mask.dim() == PER_BATCH:
        return mask[:, None, None, :]
    message = (
        "attention mask: expected [batch, to] or [batch, from, to], found the shape "
        f"{list(mask.shape)}"
    )
    raise ValueError(message)


def hide_future(
    input_shape: Sequence[int], mask: torch.Tensor, device: torch.device | None
) -> torch.Tensor:
    """Return a mask `[batch, 1, from, to]` of one `[batch, to]`: no position sees a later one.

    Positions that are only in the mask are taken to come before the input, and are seen.
    """
    batch, length = input_shape
    positions = torch.arange(length, device=device)
    seen = (positions[None, :] <= positions[:, None]).to(mask.dtype).expand(batch, length, length)
    before = mask.shape[1] - length
    if before > 0:
        ones = torch.ones((batch, length, before), device=device, dtype=mask.dtype)
        seen = torch.cat([ones, seen], dim=-1)
    return seen[:, None, :, :] * mask[:, None, None, :]


def spread_head_mask(mask: torch.Tensor, num_hidden_layers: int) -> torch.Tensor:
    """Return a mask `[layer, batch, head, from, to]` of one per head, or per layer and head.

    Raises:
        ValueError: it has other dimensions.
    """
    if mask.dim() == 1:
        return mask[None, None, :, None, None].expand(num_hidden_layers, -1, -1, -1, -1)
    if mask.dim() == PER_BATCH:
        return mask[:, None, :, None, None]
    if mask.dim() == _HEAD_MASK_DIM:
        return mask
    message = (
        "head mask: expected [head], [layer, head] or [layer, batch, head, from, to], found the "
        f"shape {list(mask.shape)}"
    )
    raise ValueError(message)
