"""Names of a state dict ↔ modules: which module a name is in, which modules are all there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

logger = logging.getLogger(__name__)


def find_submodule_and_param_name(
    model: nn.Module, long_key: str, start_prefix: str
) -> tuple[nn.Module | None, str]:
    """Return the module that a name of a checkpoint is in, and its name there.

    Args:
        model: the model.
        long_key: the name, with dots.
        start_prefix: a first part that the checkpoint's names have and the model's have not.

    Returns:
        The module and the last part of the name. The module is None for a name of the model
        itself, or where the model has no such module; then the name is the first part that it
        lacks.

    Example:
        >>> find_submodule_and_param_name(torch.nn.ModuleDict(), "bert.layer.weight", "bert")
        (None, 'layer')
    """
    parts = long_key.split(".")
    if start_prefix and long_key.startswith(start_prefix):
        parts = parts[1:] or [""]
    found = model
    while len(parts) > 1:
        if not hasattr(found, parts[0]):
            return None, parts[0]
        found = getattr(found, parts.pop(0))
    return (None if found is model else found), parts[0]


def set_initialized_submodules(
    model: nn.Module, state_dict_keys: Iterable[str]
) -> dict[str, nn.Module]:
    """Mark the modules of which a checkpoint has everything, and return the others by name.

    Marked modules get the attribute `_is_hf_initialized`; a model's `init_weights` leaves them
    alone. Takes time in proportion to the number of names; 4.46 goes over them once per module.

    Args:
        model: the model; the name of the model itself is `""`.
        state_dict_keys: names that the checkpoint has, as the model spells them.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> list(set_initialized_submodules(model, ["0.weight"]))
        ['', '0']
    """
    present = set(state_dict_keys)
    incomplete = _modules_lacking(model, present)
    lacking = {}
    for name, module in model.named_modules():
        if name in incomplete:
            lacking[name] = module
        else:
            module._is_hf_initialized = True
    return lacking


def _modules_lacking(model: nn.Module, present: set[str]) -> set[str]:
    """Return the names of modules of which a name is not present."""
    if not all(_names_its_own(module) for module in model.modules()):
        return {
            name
            for name, module in model.named_modules()
            if any(f"{name}.{key}".lstrip(".") not in present for key in module.state_dict())
        }
    missing = [name for name in model.state_dict(keep_vars=True) if name not in present]
    return {
        ".".join(parts[:depth])
        for parts in (name.split(".") for name in missing)
        for depth in range(len(parts))
    }


def _names_its_own(module: nn.Module) -> bool:
    """Whether the names in a module are those in its parent, with the module's own before them."""
    kind = type(module)
    is_plain = (
        kind.state_dict is nn.Module.state_dict
        and kind._save_to_state_dict is nn.Module._save_to_state_dict
    )
    return is_plain and not module._state_dict_hooks and not module._state_dict_pre_hooks


def check_support_param_buffer_assignment(
    model_to_load: nn.Module, state_dict: Mapping[str, torch.Tensor], start_prefix: str = ""
) -> bool:
    """Whether tensors of a checkpoint may take the place of a model's, instead of being copied.

    Args:
        model_to_load: the model; its attribute `_supports_param_buffer_assignment` may forbid it.
        state_dict: the checkpoint.
        start_prefix: what the checkpoint's names begin with and the model's do not.

    Returns:
        True if the checkpoint has the model's first tensor, in the model's dtype.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> check_support_param_buffer_assignment(model, {"weight": torch.zeros(2, 2)})
        True
        >>> check_support_param_buffer_assignment(model, {"weight": torch.zeros(2, 2).half()})
        False
    """
    if not any(name.startswith(start_prefix) for name in state_dict):
        return False
    if not getattr(model_to_load, "_supports_param_buffer_assignment", True):
        logger.debug("%s is filled by copies, as it asks for", type(model_to_load).__name__)
        return False
    first = next(iter(model_to_load.state_dict(keep_vars=True).items()), None)
    if first is None:
        return False
    name, tensor = first
    given = state_dict.get(start_prefix + name)
    return given is not None and given.dtype == tensor.dtype
