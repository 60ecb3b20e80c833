"""Modules for both sides: built from a description, over the one base class and the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


def build(mixin: Any, spec: dict[str, Any]) -> Any:
    """Return a module of the layers that a description lists, with a mixin's methods.

    Keys of the description: `layers` (pairs of a kind and a size), `tied` (pairs of layers of one
    weight), `frozen` (names of parameters), `dtype`, `decoder`.
    """

    class Built(mixin, nn.Module):
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(is_decoder=spec.get("decoder", False))
            self.layers = nn.ModuleList(_layer(*layer) for layer in spec.get("layers", ()))

    model = Built()
    for one, other in spec.get("tied", ()):
        model.layers[one].weight = model.layers[other].weight
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in spec.get("frozen", ())
    return model.to(spec.get("dtype", torch.float32))


def _layer(kind: str, size: int) -> nn.Module:
    return {
        "linear": lambda: nn.Linear(size, size),
        "embedding": lambda: nn.Embedding(size, size),
        "norm": lambda: nn.BatchNorm1d(size, affine=False),
        "relu": nn.ReLU,
        "integers": lambda: _Integers(size),
        "attribute": lambda: _Attribute(size),
    }[kind]()


class _Integers(nn.Module):
    """Has a parameter of integers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        data = torch.zeros(size, dtype=torch.int32)
        self.weight = nn.Parameter(data, requires_grad=False)


class _Attribute(nn.Module):
    """Has a tensor that is no parameter, as a replica of `nn.DataParallel` has."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.plain = torch.zeros(size, dtype=torch.float64)
