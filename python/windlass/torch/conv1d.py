"""`Conv1D`: the linear layer of GPT-2, whose weight is stored the other way round."""

from __future__ import annotations

import torch
from torch import nn


class Conv1D(nn.Module):
    """A linear layer with the weight `[inputs, outputs]`, normally distributed by 0.02.

    Args:
        nf: outputs.
        nx: inputs.

    Example:
        >>> Conv1D(3, 4)(torch.zeros(2, 4))
        tensor([[0., 0., 0.],
                [0., 0., 0.]], grad_fn=<ViewBackward0>)
    """

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.nx = nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.02)

    def __repr__(self) -> str:
        return f"Conv1D(nf={self.nf}, nx={self.nx})"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x @ weight + bias` over the last dimension."""
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], self.nf)
