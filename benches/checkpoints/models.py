"""Builds plain `nn.Module` trees whose names are those of a layout, with every page touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from checkpoints.naive_reader import TORCH_DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from checkpoints.layout import TensorSpec

# No checkpoint holds this value, so that a parameter nobody filled is seen.
UNFILLED = 7.0


def build_model(tensors: Iterable[TensorSpec], dtype: torch.dtype | None = None) -> nn.Module:
    """Return a module tree with one parameter for each tensor, filled with `UNFILLED`.

    Writing the value is what touches the memory: `torch.empty` and `torch.zeros` do not.
    """
    root = nn.Module()

    def touched(spec: TensorSpec) -> torch.Tensor:
        return torch.empty(spec.shape, dtype=dtype or TORCH_DTYPES[spec.dtype]).fill_(UNFILLED)

    add_parameters(root, tensors, touched)
    return root


def add_parameters(
    root: nn.Module,
    tensors: Iterable[TensorSpec],
    make: Callable[[TensorSpec], torch.Tensor],
) -> None:
    """Give `root` a parameter for each tensor, and the modules that their names ask for."""
    modules = {"": root}
    for spec in tensors:
        prefix, _, leaf = spec.name.rpartition(".")
        _module_at(prefix, modules).register_parameter(leaf, nn.Parameter(make(spec)))


def _module_at(path: str, modules: dict[str, nn.Module]) -> nn.Module:
    """Return the module at the dotted `path`, made with its ancestors if it is new."""
    if path not in modules:
        parent, _, leaf = path.rpartition(".")
        modules[path] = nn.Module()
        _module_at(parent, modules).add_module(leaf, modules[path])
    return modules[path]
