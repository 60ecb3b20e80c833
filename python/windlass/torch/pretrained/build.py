"""A model before its weights: built under a dtype and a device, its memory asked for, not touched.

Initialisers of torch are skipped, so the pages of large parameters exist only when weights are read
into them: memory is the model once. What a constructor computes itself (buffers, parameters of
given values) is there as it was meant.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import torch

from windlass.torch.initialisation import no_init_weights
from windlass.torch.module_names import set_initialized_submodules
from windlass.torch.pretrained.default_dtype import default_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from torch import nn

T = TypeVar("T")


def build(
    make: Callable[[], T], *, dtype: torch.dtype | None, device: torch.device | None, init: bool
) -> T:
    """Build a model of a dtype on a device; with `init=False` nothing is initialised."""
    place = contextlib.nullcontext() if device is None else device
    with default_dtype(dtype), no_init_weights(_enable=not init), place:
        return make()


def keep_in_float32(model: nn.Module, parts: Iterable[str], loaded: Collection[str]) -> None:
    """Make parameters float32 whose name has one of `parts` between its dots.

    The values of those in `loaded` are about to be read, and not kept.
    """
    wanted = set(parts)
    for name, parameter in model.named_parameters() if wanted else ():
        if parameter.dtype != torch.float32 and not wanted.isdisjoint(name.split(".")):
            new = torch.empty_like(parameter, dtype=torch.float32, requires_grad=False)
            parameter.data = new if name in loaded else new.copy_(parameter.detach())


def mark_initialised(model: nn.Module) -> None:
    """Say of every module that it needs no initialising."""
    for module in model.modules():
        module.__dict__["_is_hf_initialized"] = True  # `nn.Module` asks first what kind it is.


def initialise_absent(
    model: nn.Module,
    present: Iterable[str],
    *,
    initialise: Callable[[nn.Module], object],
    tied_head: nn.Module | None,
) -> None:
    """Initialise every module of which a weight, at any depth, is not about to be loaded.

    Where the model does not override `_init_weights`, as `reset_parameters` of the modules does.

    Args:
        model: the model. Modules that are done carry `_is_hf_initialized`.
        present: names of the model that the checkpoint fills.
        initialise: what to do with a module that does not carry it.
        tied_head: output embeddings whose only weight is about to be tied, and is not made up.
    """
    incomplete = set_initialized_submodules(model, present)
    if tied_head is not None:
        tied_head._is_hf_initialized = True  # type: ignore[assignment]
    if incomplete:
        if _says_nothing(model):
            _reset(incomplete.values())
        model.apply(initialise)  # type: ignore[arg-type]


def _says_nothing(model: nn.Module) -> bool:
    """Whether a model leaves it to its modules how they are initialised."""
    from windlass.torch.pretrained.model import PreTrainedModel

    return getattr(type(model), "_init_weights", None) is PreTrainedModel._init_weights


def _reset(modules: Iterable[nn.Module]) -> None:
    """Initialise modules as their constructors would have done, but for `no_init_weights`."""
    for module in modules:
        if not getattr(module, "_is_hf_initialized", False):
            reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
            if callable(reset):
                reset()
