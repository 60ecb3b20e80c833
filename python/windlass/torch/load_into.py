"""A state dict put into a model by the rules of 4.46's private loaders: what fits is taken.

For code that calls these; `load_sharded_checkpoint` and `from_pretrained` check everything first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from windlass.errors import NotSupported
from windlass.torch.device_maps import device_of
from windlass.torch.module_names import find_submodule_and_param_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

#: Last part of a name, as TensorFlow's layer norms and torch's old weight norm spell it → today's.
_OLD_SPELLINGS = {"gamma": "weight", "beta": "bias"}
_OLD_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def load_state_dict_into_model(
    model_to_load: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    start_prefix: str,
    assign_to_params_buffers: bool = False,  # noqa: FBT001, FBT002
) -> list[str]:
    """Fill what a model has of a state dict; leave out what it has not.

    Args:
        model_to_load: the model.
        state_dict: tensors by name; `gamma` and `beta` at the end of a name are `weight` and
            `bias`. It is not changed.
        start_prefix: what its names begin with and the model's do not.
        assign_to_params_buffers: put the tensors in the place of the model's, without a copy.

    Returns:
        What went wrong, as torch words it: shapes that differ, copies that failed.

    Example:
        >>> model = torch.nn.LayerNorm(2)
        >>> load_state_dict_into_model(model, {"ln.gamma": torch.zeros(2)}, "ln.")
        []
        >>> model.weight.data
        tensor([0., 0.])
    """
    metadata = getattr(state_dict, "_metadata", None) or {}
    state = _respelled(state_dict, _OLD_SPELLINGS)
    errors: list[str] = []

    def load(module: nn.Module, prefix: str) -> None:
        local = {
            **metadata.get(prefix[:-1], {}),
            "assign_to_params_buffers": assign_to_params_buffers,
        }
        module._load_from_state_dict(state, prefix, local, True, [], [], errors)  # noqa: FBT003
        # `named_children` would leave out a module that is there under a second name.
        for name, child in module._modules.items():
            if child is not None:
                load(child, f"{prefix}{name}.")

    load(model_to_load, start_prefix)
    return errors


def move_model_to_meta(
    model: nn.Module, loaded_state_dict_keys: Iterable[str], start_prefix: str
) -> None:
    """Free the memory of tensors that a checkpoint is about to replace.

    Args:
        model: the model; tensors of its own, outside of modules, stay.
        loaded_state_dict_keys: names of the tensors.
        start_prefix: as for `find_submodule_and_param_name`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> move_model_to_meta(model, ["0.weight"], "")
        >>> model[0].weight.device, model[0].bias.device
        (device(type='meta'), device(type='cpu'))
    """
    for key in loaded_state_dict_keys:
        module, name = find_submodule_and_param_name(model, key, start_prefix)
        if module is not None:
            _put(module, name, getattr(module, name).to("meta"))


def load_state_dict_into_meta_model(  # noqa: PLR0917  (the signature that it replaces)
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    start_prefix: str,
    expected_keys: Collection[str],
    device_map: Mapping[str, Any] | None = None,
    offload_folder: str | None = None,
    offload_index: dict[str, Any] | None = None,
    state_dict_folder: str | None = None,
    state_dict_index: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    hf_quantizer: object = None,
    is_safetensors: bool = False,  # noqa: FBT001, FBT002
    keep_in_fp32_modules: Collection[str] | None = None,
    unexpected_keys: Collection[str] | None = None,
    pretrained_model_name_or_path: str | None = None,
) -> tuple[list[str], dict[str, Any] | None, dict[str, Any] | None]:
    """Put the tensors of a state dict in the place of a model's, on devices of their own.

    Args:
        model: the model, maybe on the meta device.
        state_dict: tensors by name; old spellings of layer norms and weight norms are understood.
            It is not changed.
        start_prefix: what its names begin with and the model's do not.
        expected_keys: names to take; others are left out.
        device_map: devices by module or tensor; the CPU by default.
        offload_folder: has no effect: nothing is offloaded.
        offload_index: is returned.
        state_dict_folder: has no effect: nothing is offloaded.
        state_dict_index: offloading of the CPU's part is not there yet.
        dtype: floating-point tensors, but for `float8_e4m3fn`, are rounded to it before they take
            the dtype of the model's tensor: that of a model which is built in this dtype.
        hf_quantizer: is not there yet.
        is_safetensors: has no effect: nothing is offloaded.
        keep_in_fp32_modules: parts of names whose tensors stay float32 if `dtype` is float16.
        unexpected_keys: has no effect: it concerns quantisers.
        pretrained_model_name_or_path: has no effect: nothing is said of respelled names.

    Returns:
        No errors, and both indexes as they were given.

    Raises:
        NoDevice: the map has no device for a tensor, nor for a module it is in.
        NotSupported: a tensor is to go to the disk; or a quantiser or `state_dict_index` is given.
        ValueError: a tensor has another shape than the model's.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False, device="meta")
        >>> state = {"weight": torch.ones(1, 2)}
        >>> load_state_dict_into_meta_model(model, state, "", ["weight"])
        ([], None, None)
        >>> model.weight
        Parameter containing:
        tensor([[1., 1.]], requires_grad=True)
    """
    del offload_folder, state_dict_folder, is_safetensors
    del unexpected_keys, pretrained_model_name_or_path
    for what, given in {"hf_quantizer": hf_quantizer, "state_dict_index": state_dict_index}.items():
        if given is not None:
            message = f"{what}: quantising and offloading are not there yet; leave it out"
            raise NotSupported(message)
    state = _respelled(state_dict, _OLD_SPELLINGS | _OLD_WEIGHT_NORM)
    expected = set(expected_keys)
    for key, tensor in state.items():
        if key in expected:
            name = key.removeprefix(start_prefix)
            module, last = _place_of(model, name)
            stays = dtype == torch.float16 and _is_within(name, keep_in_fp32_modules)
            value = _cast(tensor, dtype, getattr(module, last), stays=stays)
            _replace(module, last, value.to(_target(name, device_map)), name)
    return [], offload_index, state_dict_index


def _respelled(
    state_dict: Mapping[str, torch.Tensor], spellings: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    respelled = {}
    for name, tensor in state_dict.items():
        module, dot, last = name.rpartition(".")
        respelled[f"{module}{dot}{spellings.get(last, last)}"] = tensor
    return respelled


def _place_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return model.get_submodule(path), last


def _is_within(name: str, parts: Collection[str] | None) -> bool:
    return not set(parts or ()).isdisjoint(name.split("."))


def _cast(
    tensor: torch.Tensor, dtype: torch.dtype | None, old: torch.Tensor, *, stays: bool
) -> torch.Tensor:
    """Round to one dtype, then take the model's; what is to stay float32 does only that."""
    if dtype is not None and tensor.is_floating_point() and tensor.dtype != torch.float8_e4m3fn:
        tensor = tensor.to(torch.float32 if stays else dtype)
    else:
        stays = False
    tensor = tensor if stays else tensor.to(old.dtype)
    return tensor.contiguous() if old.is_contiguous() else tensor


def _target(name: str, device_map: Mapping[str, Any] | None) -> Any:  # noqa: ANN401  (any device)
    device = "cpu" if device_map is None else device_of(name, device_map)
    if device == "disk":
        message = f"device_map: tensor `{name}` on the disk: offloading is not there yet"
        raise NotSupported(message)
    return device


def _replace(module: nn.Module, last: str, value: torch.Tensor, name: str) -> None:
    old = getattr(module, last)
    if old.shape != value.shape:
        message = (
            f"tensor `{name}`: expected the shape {list(old.shape)} of the model, found "
            f"{list(value.shape)}"
        )
        raise ValueError(message)
    _put(module, last, value)


def _put(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Set a tensor; where there is a parameter, as one that needs gradients if that does."""
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        value = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, name, value)
