"""Questions about modules and state dicts: `ModuleUtilsMixin` and the helpers beside it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import modeling_utils
from transformers.modeling_utils import ModuleUtilsMixin

from oracle.modules import build


def call(case: dict[str, Any]) -> Any:
    """What a method of the mixin returns."""
    model = build(ModuleUtilsMixin, case["module"])
    return getattr(model, case["method"])(*case["arguments"])


def counts(case: dict[str, Any]) -> list[Any]:
    """Numbers of parameters of every kind, dtype and operations."""
    model = build(ModuleUtilsMixin, case)
    inputs = {"input_ids": torch.zeros(2, 3)}
    return [
        *[model.num_parameters(one, two) for one in (False, True) for two in (False, True)],
        model.floating_point_ops(inputs),
        model.floating_point_ops({"other": 1}, exclude_embeddings=False),
    ]


def dtypes(case: dict[str, Any]) -> list[Any]:
    model = build(ModuleUtilsMixin, case)
    return [model.dtype, modeling_utils.get_parameter_dtype(model)]


def first(case: dict[str, Any]) -> list[Any]:
    """Dtype and device of the first parameter."""
    model = build(ModuleUtilsMixin, case)
    return [modeling_utils.get_first_parameter_dtype(model), model.device]


def helper(case: dict[str, Any]) -> Any:
    """What a function of `modeling_utils` returns."""
    return getattr(modeling_utils, case["function"])(*case["arguments"])


def initialised(case: dict[str, Any]) -> list[Any]:
    """Which modules a state dict leaves out, and which are marked."""
    model = build(ModuleUtilsMixin, case["module"])
    lacking = modeling_utils.set_initialized_submodules(model, case["keys"])
    marked = [name for name, one in model.named_modules() if hasattr(one, "_is_hf_initialized")]
    return [list(lacking), marked]


def found(case: dict[str, Any]) -> list[Any]:
    """The name of the module that a key is in, and the name there."""
    model = build(ModuleUtilsMixin, case["module"])
    module, name = modeling_utils.find_submodule_and_param_name(model, case["key"], case["prefix"])
    names = {id(one): path for path, one in model.named_modules()}
    return [None if module is None else names.get(id(module), "?"), name]


def assignable(case: dict[str, Any]) -> bool:
    model = build(ModuleUtilsMixin, case["module"])
    if case["refuses"]:
        model._supports_param_buffer_assignment = False
    return modeling_utils.check_support_param_buffer_assignment(
        model, case["state"], case["prefix"]
    )


def areas(case: dict[str, Any]) -> list[Any]:
    """What shares bytes among views of one storage, given by first element and length."""
    storage = torch.zeros(64)
    state = {name: storage[start : start + length] for name, start, length in case}
    shared, disjoint = modeling_utils._find_disjoint([set(state)], state)
    return [sorted(map(sorted, shared)), sorted(disjoint)]


def identical(case: dict[str, Any]) -> list[Any]:
    storage = torch.zeros(64)
    state = {name: storage[start : start + length] for name, start, length in case}
    shared, same = modeling_utils._find_identical([set(state)], state)
    return [sorted(map(sorted, shared)), sorted(map(sorted, same))]


def loaded(case: str) -> Any:
    """What `load_state_dict` makes of a file."""
    return dict(modeling_utils.load_state_dict(case))
