"""huggingface_hub: `load_torch_model` with `strict=True`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import load_torch_model

from engines.protocol import parse_arguments
from engines.tasks import run_fill

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def fill(model: nn.Module, folder: Path) -> None:
    """Fill `model` from the folder's index."""
    load_torch_model(model, folder, strict=True)


if __name__ == "__main__":
    run_fill(fill, parse_arguments())
