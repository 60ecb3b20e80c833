"""The rule of transformers 4.46's `load_sharded_checkpoint`, for safetensors shards.

Names are compared first; then each shard goes through `safetensors.torch.load_file` and
`load_state_dict(strict=False)`, and is deleted and collected before the next.
"""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING

from checkpoints.files import INDEX_NAME
from safetensors.torch import load_file

from engines.protocol import parse_arguments
from engines.tasks import run_fill

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def fill(model: nn.Module, folder: Path) -> None:
    """Fill `model` as that function does with `strict=True`."""
    weight_map: dict[str, str] = json.loads((folder / INDEX_NAME).read_text())["weight_map"]
    expected = model.state_dict().keys()
    missing = [name for name in expected if name not in weight_map]
    unexpected = [name for name in weight_map if name not in expected]
    if missing or unexpected:
        message = f"missing {missing[:3]}, unexpected {unexpected[:3]}"
        raise RuntimeError(message)
    for shard in set(weight_map.values()):
        tensors = load_file(folder / shard)
        model.load_state_dict(tensors, strict=False)
        del tensors
        gc.collect()


if __name__ == "__main__":
    run_fill(fill, parse_arguments())
