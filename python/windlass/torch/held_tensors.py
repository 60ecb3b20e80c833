"""What a module or a state dict holds: on which device, of which dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windlass.errors import NoTensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn


def get_parameter_device(parameter: nn.Module) -> torch.device:
    """Return the device of a module's first parameter.

    A module without parameters is judged by the first tensor among the plain attributes of its
    modules: replicas that `nn.DataParallel` makes have nothing else.

    Args:
        parameter: the module; the name is that of transformers 4.46.

    Raises:
        NoTensors: the module has neither.

    Example:
        >>> get_parameter_device(torch.nn.Linear(2, 2, device="meta"))
        device(type='meta')
    """
    return _first(parameter).device


def get_first_parameter_dtype(parameter: nn.Module) -> torch.dtype:
    """Return the dtype of a module's first parameter, whatever it is.

    Args:
        parameter: the module; one without parameters is judged as in `get_parameter_device`.

    Raises:
        NoTensors: the module has neither parameters nor tensors as plain attributes.

    Example:
        >>> get_first_parameter_dtype(torch.nn.Linear(2, 2, dtype=torch.float16))
        torch.float16
    """
    return _first(parameter).dtype


def get_parameter_dtype(parameter: nn.Module) -> torch.dtype | None:
    """Return the dtype of a module's first floating-point parameter.

    Args:
        parameter: the module. Without such a parameter, the dtype of the last parameter; without
            any, that of the first floating-point tensor, or else the last, among the plain
            attributes of its modules, and then among its buffers.

    Returns:
        The dtype; None for a module that holds no tensor.

    Example:
        >>> get_parameter_dtype(torch.nn.BatchNorm1d(2, affine=False))
        torch.float32
    """
    for tensors in (parameter.parameters(), _attributes(parameter), parameter.buffers()):
        last = None
        for tensor in tensors:
            last = tensor.dtype
            if last.is_floating_point:
                return last
        if last is not None:
            return last
    return None


def get_state_dict_float_dtype(state_dict: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Return the dtype of the first floating-point tensor of a state dict.

    Args:
        state_dict: tensors by name.

    Raises:
        NoTensors: it has no floating-point tensor.

    Example:
        >>> get_state_dict_float_dtype({"a": torch.zeros(1, dtype=torch.int8), "b": torch.zeros(1)})
        torch.float32
    """
    for tensor in state_dict.values():
        if tensor.is_floating_point():
            return tensor.dtype
    message = f"expected a floating-point tensor in the state dict, found {_kinds(state_dict)}"
    raise NoTensors(message)


def get_state_dict_dtype(state_dict: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Return the dtype of the first floating-point tensor of a state dict, or of the first tensor.

    Args:
        state_dict: tensors by name.

    Raises:
        NoTensors: the state dict is empty.

    Example:
        >>> get_state_dict_dtype({"a": torch.zeros(1, dtype=torch.int8)})
        torch.int8
    """
    for tensor in state_dict.values():
        if tensor.is_floating_point():
            return tensor.dtype
    for tensor in state_dict.values():
        return tensor.dtype
    message = "expected tensors in the state dict, found none"
    raise NoTensors(message)


def _first(module: nn.Module) -> torch.Tensor:
    for tensors in (module.parameters(), _attributes(module)):
        for tensor in tensors:
            return tensor
    message = f"{type(module).__name__}: expected a parameter or a tensor attribute, found none"
    raise NoTensors(message)


def _attributes(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors that modules have as plain attributes, each once."""

    def find(submodule: nn.Module) -> Iterable[tuple[str, Any]]:
        return [(k, v) for k, v in submodule.__dict__.items() if isinstance(v, torch.Tensor)]

    for _, tensor in module._named_members(get_members_fn=find):
        yield tensor


def _kinds(state_dict: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(sorted({str(tensor.dtype) for tensor in state_dict.values()})) or "none"
