"""Questions about layers: pruned, resized, applied."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, modeling_utils, pytorch_utils
from transformers.modeling_utils import PreTrainedModel


def prune(case: dict[str, Any]) -> list[Any]:
    layer = _with_values(_layer(case["kind"], *case["sizes"], case["bias"]), case["values"])
    pruned = pytorch_utils.prune_layer(layer, case["index"], case["dim"])
    return [_values(pruned), repr(pruned), pruned.weight.requires_grad]


def heads(case: list[Any]) -> list[Any]:
    return list(pytorch_utils.find_pruneable_heads_and_indices(*case))


def conv1d(case: dict[str, Any]) -> torch.Tensor:
    layer = _with_values(pytorch_utils.Conv1D(*case["sizes"]), case["values"])
    return layer(case["input"])


def chunked(case: dict[str, Any]) -> torch.Tensor:
    functions = {1: lambda x: x * 2, 2: lambda x, y: x + y}
    return pytorch_utils.apply_chunking_to_forward(
        functions[case["takes"]], case["size"], case["dim"], *case["inputs"]
    )


def resize_embeddings(case: dict[str, Any]) -> list[Any]:
    old = nn.Embedding(*case["weight"].shape, padding_idx=case["padding"])
    old.weight.data = case["weight"].clone()
    resized = _Model()._get_resized_embeddings(
        old, case["count"], case["multiple"], mean_resizing=case["mean"]
    )
    return [resized.weight.data, resized.num_embeddings, resized.padding_idx, resized is old]


def resize_lm_head(case: dict[str, Any]) -> list[Any]:
    old = nn.Linear(*reversed(case["weight"].shape), bias=case["bias"] is not None)
    old.weight.data = case["weight"].clone()
    if case["bias"] is not None:
        old.bias.data = case["bias"].clone()
    resized = _Model()._get_resized_lm_head(
        old, case["count"], case["transposed"], mean_resizing=case["mean"]
    )
    bias = None if resized.bias is None else resized.bias.data
    return [resized.weight.data, bias, resized.in_features, resized.out_features, resized is old]


def head(case: dict[str, Any]) -> Any:
    """What a head with given weights makes of states."""
    layer = getattr(modeling_utils, case["kind"])(PretrainedConfig(**case["config"]))
    result = _with_values(layer, case["values"])(**case["inputs"])
    return [part.detach() for part in result] if isinstance(result, tuple) else result.detach()


class _Model(PreTrainedModel):
    """Fills what it initialises with a half."""

    def __init__(self) -> None:
        super().__init__(PretrainedConfig())

    def _init_weights(self, module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.data.fill_(0.5)


def _layer(kind: str, outputs: int, inputs: int, bias: Any) -> nn.Module:
    if kind == "linear":
        return nn.Linear(inputs, outputs, bias=bias)
    return {"conv1d": pytorch_utils.Conv1D, "norm": lambda n, _: nn.LayerNorm(n)}[kind](
        outputs, inputs
    )


def _with_values(layer: nn.Module, values: dict[str, torch.Tensor]) -> nn.Module:
    layer.load_state_dict(values)
    return layer.eval()


def _values(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in layer.state_dict().items()}
