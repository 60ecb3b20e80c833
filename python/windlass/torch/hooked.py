"""Modules that load themselves: through torch's own path.

Quantised layers, `weight_norm`, batch norm and lazy modules override or hook the steps of
`load_state_dict`. Such a module gets its part of the checkpoint as a dict, exactly as torch would
hand it over, with tensors that are read as they are touched. Only the module can say whether the
state fits, so it is loaded before all plain modules, and its former state is kept until the whole
plan stands: that takes as much memory as the module has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from windlass.errors import IncompatibleKeys

if TYPE_CHECKING:
    from collections import OrderedDict

    from windlass.torch.slots import Hooked


class HookedResult(NamedTuple):
    """What torch reports of one module, with full names."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_hooked(
    hooked: Hooked, state: OrderedDict[str, Any], owner: nn.Module, *, assign: bool
) -> HookedResult:
    """Let torch load one module from `state`, whose keys are full names.

    Raises:
        IncompatibleKeys: torch found that the state does not fit, in torch's words.
    """
    shell = _shell(hooked)
    options = {"assign": True} if assign else {}  # Older overrides do not know the word.
    try:
        result = shell.load_state_dict(state, strict=False, **options)
    except RuntimeError as error:
        words = f"Error(s) in loading state_dict for {type(shell).__name__}:"
        if not str(error).startswith(words):
            raise
        title = f"Error(s) in loading state_dict for {type(owner).__name__}:"
        raise IncompatibleKeys(title + str(error).removeprefix(words)) from error
    if result is None:  # An override that reports nothing.
        return HookedResult([], [])
    return HookedResult(list(result.missing_keys), list(result.unexpected_keys))


def _shell(hooked: Hooked) -> nn.Module:
    """Wrap a module in empty ones, so that torch reaches it under its full name."""
    outer = hooked.module
    for part in reversed(hooked.prefix.split(".")[:-1]):
        inner, outer = outer, nn.Module()
        outer._modules[part] = inner
    return outer


class Snapshot:
    """The state of a module and all below it, to be brought back."""

    def __init__(self, module: nn.Module) -> None:
        self._modules = [_ModuleState.of(part) for part in module.modules()]
        tensors = {id(tensor): tensor for state in self._modules for tensor in state.tensors()}
        with torch.no_grad():
            self._tensors = [_TensorState.of(tensor) for tensor in tensors.values()]

    def restore(self) -> None:
        """Bring back every attribute, and every byte."""
        for module in self._modules:
            module.restore()
        with torch.no_grad():
            for tensor in self._tensors:
                tensor.restore()


class _ModuleState(NamedTuple):
    module: nn.Module
    attributes: dict[str, Any]
    tables: list[tuple[dict[str, Any], dict[str, Any]]]

    @classmethod
    def of(cls, module: nn.Module) -> _ModuleState:
        attributes = dict(module.__dict__)
        tables = [(table, dict(table)) for table in attributes.values() if isinstance(table, dict)]
        return cls(module, attributes, tables)

    def tensors(self) -> list[torch.Tensor]:
        own = (*self.module._parameters.values(), *self.module._buffers.values())
        return [tensor for tensor in own if tensor is not None]

    def restore(self) -> None:
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for table, entries in self.tables:
            table.clear()
            table.update(entries)


class _TensorState(NamedTuple):
    tensor: torch.Tensor
    cls: type
    view: torch.Tensor
    memory: torch.Tensor
    values: torch.Tensor
    requires_grad: bool

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _TensorState:
        view = tensor.data if is_lazy(tensor) else tensor.detach()
        memory = _without_repeats(view)
        return cls(tensor, type(tensor), view, memory, memory.clone(), tensor.requires_grad)

    def restore(self) -> None:
        if type(self.tensor) is not self.cls:  # A lazy parameter that was given its shape.
            self.tensor.data = self.view
            self.tensor.__class__ = self.cls
            return
        if is_lazy(self.tensor):
            return
        if not self._looks_into_memory():
            self.tensor.data = self.view
        if not self.memory.is_meta:
            self.memory.copy_(self.values)
        if self.tensor.is_leaf:
            self.tensor.requires_grad_(self.requires_grad)

    def _looks_into_memory(self) -> bool:
        now, then = self.tensor, self.view
        is_plain = then.layout is torch.strided and not then.is_quantized
        return is_plain and (now.is_meta or now.is_set_to(then))


def _without_repeats(tensor: torch.Tensor) -> torch.Tensor:
    """Each element of an expanded view once: what `copy_` can write to."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return tensor
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor
