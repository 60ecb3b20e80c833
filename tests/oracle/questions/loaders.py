"""Questions about the private loaders: what they make of a model."""

from __future__ import annotations

from typing import Any

from transformers import modeling_utils
from transformers.modeling_utils import ModuleUtilsMixin

from oracle.modules import build


def fill(case: dict[str, Any]) -> list[Any]:
    model = build(ModuleUtilsMixin, case["module"])
    for tensor in model.state_dict().values():
        tensor.zero_()
    errors = modeling_utils._load_state_dict_into_model(
        model, case["state"], case["prefix"], case["assign"]
    )
    return [
        {n: (t.dtype, t.device, t.tolist()) for n, t in model.state_dict().items()},
        len(errors),
    ]


def fill_meta(case: dict[str, Any]) -> dict[str, Any]:
    model = build(ModuleUtilsMixin, case["module"])
    expected = list(model.state_dict())
    modeling_utils._load_state_dict_into_meta_model(
        model.to("meta"),
        case["state"],
        "",
        expected,
        device_map=case["map"],
        dtype=case["dtype"],
        keep_in_fp32_modules=case["kept"],
    )
    return {
        name: (t.dtype, t.device, None if t.is_meta else t.tolist())
        for name, t in model.state_dict().items()
    }


def moved(case: dict[str, Any]) -> dict[str, bool]:
    model = build(ModuleUtilsMixin, case["module"])
    modeling_utils._move_model_to_meta(model, case["keys"], "")
    return {name: tensor.is_meta for name, tensor in model.state_dict().items()}
