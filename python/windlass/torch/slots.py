"""A model's `state_dict` as places to fill: one walk over its modules, nothing copied.

`Module.state_dict()` and `Module.load_state_dict()` are both defined by recursion over modules
that may override or hook every step. Modules that do neither are walked here, in the same order;
a module that does is left whole, with everything below it, to torch (see `hooked.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slot(NamedTuple):
    """One parameter or persistent buffer.

    Attributes:
        name: its name in the state dict.
        tensor: the tensor itself, not a copy and not detached.
        module: the module that holds it.
        key: its name within that module.
    """

    name: str
    tensor: torch.Tensor
    module: nn.Module
    key: str


class Hooked(NamedTuple):
    """A module that loads itself, with everything below it.

    Attributes:
        prefix: what its names begin with, such as `"encoder."`; empty for the model itself.
        module: the module.
    """

    prefix: str
    module: nn.Module


#: Methods of a class that take part in saving or loading.
_CLASS_HOOKS = (
    "_load_from_state_dict",
    "_save_to_state_dict",
    "state_dict",
    "get_extra_state",
    "set_extra_state",
)

#: Hook tables of a module that take part in saving or loading.
_INSTANCE_HOOKS = (
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)


def walk(model: nn.Module) -> list[Slot | Hooked]:
    """Return every place of the model, in the order of its state dict."""
    own = model.__dict__.get("load_state_dict") or type(model).load_state_dict
    if own is not nn.Module.load_state_dict:
        return [Hooked("", model)]
    plain_classes: dict[type, bool] = {}
    return list(_walk(model, "", plain_classes))


def _walk(
    module: nn.Module, prefix: str, plain_classes: dict[type, bool]
) -> Iterator[Slot | Hooked]:
    if not _is_plain(module, plain_classes):
        yield Hooked(prefix, module)
        return
    for key, parameter in module._parameters.items():
        if parameter is not None:
            yield Slot(prefix + key, parameter, module, key)
    for key, buffer in module._buffers.items():
        if buffer is not None and key not in module._non_persistent_buffers_set:
            yield Slot(prefix + key, buffer, module, key)
    for key, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{prefix}{key}.", plain_classes)


def _is_plain(module: nn.Module, plain_classes: dict[type, bool]) -> bool:
    cls = type(module)
    plain = plain_classes.get(cls)
    if plain is None:
        plain = not issubclass(cls, torch.jit.ScriptModule) and all(
            getattr(cls, hook) is getattr(nn.Module, hook) for hook in _CLASS_HOOKS
        )
        plain_classes[cls] = plain
    attributes = module.__dict__
    return (
        plain
        and not any(attributes.get(hook) for hook in _INSTANCE_HOOKS)
        and not any(hook in attributes for hook in _CLASS_HOOKS)
    )
