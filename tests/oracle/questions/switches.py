"""Questions about switches of initialisation and about wrapped models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import modeling_utils


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


_WRAPPERS = {
    "none": lambda module: module,
    "parallel": nn.DataParallel,
    "parallel twice": lambda module: nn.DataParallel(nn.DataParallel(module)),
    "own": Wrapper,
    "compiled": lambda module: torch.compile(module, backend="eager"),
    "compiled parallel": lambda module: torch.compile(nn.DataParallel(module), backend="eager"),
    "inside": lambda module: nn.Sequential(Wrapper(module), nn.ReLU()),
    "deep inside": lambda module: nn.Sequential(nn.Sequential(Wrapper(Wrapper(module)))),
}


def functions(_: None) -> list[str]:
    return list(modeling_utils.TORCH_INIT_FUNCTIONS)


def unwrapped(case: dict[str, Any]) -> list[list[str]]:
    """Names and classes of all modules of what is left."""
    model = _WRAPPERS[case["wrapper"]](nn.Linear(2, 2))
    inner = modeling_utils.unwrap_model(model, case["recursive"])
    return [[name, type(one).__name__] for name, one in inner.named_modules()]
