"""windlass: `PreTrainedModel.from_pretrained`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass import PretrainedConfig, PreTrainedModel

from engines.pretrained_task import run_pretrained
from engines.protocol import parse_arguments

if TYPE_CHECKING:
    import torch
    from torch import nn


def load(model: type[Any], folder: str, config: Any, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
    """Load as the documents say."""
    loaded: nn.Module = model.from_pretrained(folder, config=config, torch_dtype=dtype)
    return loaded


if __name__ == "__main__":
    run_pretrained(PreTrainedModel, PretrainedConfig, load, parse_arguments())
