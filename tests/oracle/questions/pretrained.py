"""What `PreTrainedModel` does with a folder: loads from it, saves to it."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from oracle.tiny_models import make_models

MODELS = make_models(PretrainedConfig, PreTrainedModel)


def load(case: dict[str, Any]) -> dict[str, Any]:
    """Return the loading report and the weights of a model that a folder holds."""
    torch.manual_seed(case.get("seed", 0))
    kind = type("Case", (getattr(MODELS, case["model"]),), case.get("attributes", {}))
    kind.__name__ = case["model"]
    model, info = kind.from_pretrained(case["folder"], output_loading_info=True, **case["options"])
    return {
        "info": {
            key: sorted(tuple(map(_plain, one)) if isinstance(one, tuple) else one for one in found)
            for key, found in info.items()
        },
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training": model.training,
    }


def save(case: dict[str, Any]) -> list[str]:
    """Save a model of these weights; return the names of the files."""
    config = MODELS.TinyConfig(**case["config"])
    kind = type("Case", (getattr(MODELS, case["model"]),), case["attributes"])
    kind.__name__ = case["model"]
    model = kind(config).to(getattr(torch, case["dtype"]))
    model.load_state_dict(case["state"], strict=False)
    model.save_pretrained(case["folder"], **case["options"])
    return sorted(os.listdir(case["folder"]))


def build(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights of a new model."""
    torch.manual_seed(case["seed"])
    config = MODELS.TinyConfig(**case["config"])
    return dict(getattr(MODELS, case["model"])(config).state_dict())


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value
