"""torch: `torch.load` of each `.bin` shard, mapped and weights only, then `load_state_dict`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from engines.protocol import parse_arguments
from engines.tasks import run_fill

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

INDEX_NAME = "pytorch_model.bin.index.json"


def fill(model: nn.Module, folder: Path) -> None:
    """Fill `model` shard by shard."""
    weight_map: dict[str, str] = json.loads((folder / INDEX_NAME).read_text())["weight_map"]
    for shard in sorted(set(weight_map.values())):
        tensors = torch.load(folder / shard, map_location="cpu", weights_only=True, mmap=True)
        model.load_state_dict(tensors, strict=False)


if __name__ == "__main__":
    run_fill(fill, parse_arguments(), suffix=".bin")
