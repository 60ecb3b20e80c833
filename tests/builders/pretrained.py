"""Small models of ours, folders with their checkpoints, and folders that are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from oracle.tiny_models import make_models
from windlass import PreTrainedModel
from windlass.config import PretrainedConfig

from builders.sharded import write_model, write_safe

if TYPE_CHECKING:
    from pathlib import Path

MODELS = make_models(PretrainedConfig, PreTrainedModel)
KINDS = ("TinyModel", "TinyForTokens", "TinyForLabels")


def new_model(kind: str = "TinyForLabels", seed: int = 0, **config: Any) -> Any:
    """Return a model with weights that no initialiser makes."""
    torch.manual_seed(seed)
    model = getattr(MODELS, kind)(MODELS.TinyConfig(**config))
    for tensor in model.parameters():
        tensor.data.copy_(torch.randn(tensor.shape))
    return model.eval()


def saved(folder: Path, kind: str = "TinyForLabels", seed: int = 0, **config: Any) -> Any:
    """Save such a model to a folder, and return it."""
    model = new_model(kind, seed, **config)
    model.save_pretrained(folder)
    return model


def write_folder(
    folder: Path, state: dict[str, torch.Tensor], shards: int = 1, **config: Any
) -> Path:
    """Write a checkpoint of any names and shapes, with a configuration; 0 shards: a single file."""
    folder.mkdir(parents=True, exist_ok=True)
    MODELS.TinyConfig(**config).save_pretrained(folder)
    if shards and state:
        write_model(folder, state, shards)
    else:
        write_safe(folder / "model.safetensors", state)
    return folder


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Check that two states have the same names, dtypes and bits."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name
