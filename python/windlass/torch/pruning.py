"""Heads taken out of layers: which rows of a weight stay, and layers of those alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from windlass.torch.conv1d import Conv1D

if TYPE_CHECKING:
    from collections.abc import Iterable


def find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], torch.Tensor]:
    """Return the heads that are still to be pruned, and the rows that stay.

    Args:
        heads: numbers of the heads to prune, as they were before any pruning.
        n_heads: heads that the layer has now.
        head_size: rows of a head.
        already_pruned_heads: heads that the layer has lost.

    Raises:
        IndexError: there is no such head.

    Example:
        >>> find_pruneable_heads_and_indices([0, 2], 2, 2, {0})
        ({2}, tensor([0, 1]))
    """
    remaining = set(heads) - already_pruned_heads
    stays = torch.ones(n_heads, head_size, dtype=torch.bool)
    for head in remaining:
        stays[head - sum(pruned < head for pruned in already_pruned_heads)] = False
    return remaining, stays.view(-1).nonzero().view(-1)


def prune_linear_layer(layer: nn.Linear, index: torch.Tensor, dim: int = 0) -> nn.Linear:
    """Return a linear layer that has only some of another's outputs or inputs.

    Args:
        layer: the other, which is not changed.
        index: numbers of those that stay.
        dim: 0 for outputs, 1 for inputs.

    Returns:
        A layer on the same device, in the same dtype, that needs gradients.

    Example:
        >>> prune_linear_layer(torch.nn.Linear(4, 3), torch.tensor([0, 2])).weight.shape
        torch.Size([2, 4])
    """
    weight, bias = _select(layer, index, dim, bias_dim=0)
    outputs, inputs = weight.shape
    pruned = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    _give(pruned, weight, bias)
    return pruned


def prune_conv1d_layer(layer: Conv1D, index: torch.Tensor, dim: int = 1) -> Conv1D:
    """Return a `Conv1D` that has only some of another's outputs or inputs.

    Args:
        layer: the other, which is not changed.
        index: numbers of those that stay.
        dim: 1 for outputs, 0 for inputs.

    Returns:
        A layer on the same device, in the same dtype, that needs gradients.

    Example:
        >>> prune_conv1d_layer(Conv1D(3, 4), torch.tensor([0, 2]))
        Conv1D(nf=2, nx=4)
    """
    weight, bias = _select(layer, index, dim, bias_dim=1)
    inputs, outputs = weight.shape
    pruned = Conv1D(outputs, inputs)
    _give(pruned, weight, bias)
    return pruned


def prune_layer(
    layer: nn.Linear | Conv1D, index: torch.Tensor, dim: int | None = None
) -> nn.Linear | Conv1D:
    """Return a layer that has only some of another's outputs, or of what `dim` says.

    Args:
        layer: a linear layer or a `Conv1D`.
        index: numbers of those that stay.
        dim: as for `prune_linear_layer` or `prune_conv1d_layer`; by default, outputs.

    Raises:
        ValueError: a layer of another kind.

    Example:
        >>> prune_layer(torch.nn.Linear(4, 3), torch.tensor([1])).out_features
        1
    """
    if isinstance(layer, nn.Linear):
        return prune_linear_layer(layer, index, 0 if dim is None else dim)
    if isinstance(layer, Conv1D):
        return prune_conv1d_layer(layer, index, 1 if dim is None else dim)
    message = f"expected a Linear or Conv1D layer to prune, found {type(layer).__name__}"
    raise ValueError(message)


def _select(
    layer: nn.Linear | Conv1D, index: torch.Tensor, dim: int, *, bias_dim: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Copy what stays; a bias has one number for each output, which is `bias_dim` of the weight."""
    index = index.to(layer.weight.device)
    weight = layer.weight.detach().index_select(dim, index)
    if layer.bias is None:
        return weight, None
    bias = layer.bias.detach()
    return weight, bias[index] if dim == bias_dim else bias.clone()


def _give(layer: nn.Linear | Conv1D, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
