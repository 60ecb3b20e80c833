"""`unwrap_model`: the model inside what distributed training and compilation put around it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

#: Module → classes that keep the model as `module`; where one is in use, its module is imported.
_CONTAINERS = {
    "torch.nn.parallel": ("DataParallel", "DistributedDataParallel"),
    "torch.distributed.fsdp": ("FullyShardedDataParallel",),
    "deepspeed": ("DeepSpeedEngine",),
}


def unwrap_model(model: nn.Module, recursive: bool = False) -> nn.Module:  # noqa: FBT001, FBT002
    """Return the model inside the containers of distributed training.

    Args:
        model: the model, maybe in `DataParallel`, `DistributedDataParallel`,
            `FullyShardedDataParallel` or a DeepSpeed engine, or in several; what
            `torch.compile` made of one stays compiled, with the model inside unwrapped.
        recursive: also replace modules inside the model, at every depth, by their own attribute
            `module`, where they have one. This changes the model.

    Example:
        >>> unwrap_model(torch.nn.DataParallel(model)) is model
        True
    """
    compiled, inner = _open_compiled(model)
    containers = tuple(_containers())
    while isinstance(inner, containers):
        inner = _held(inner)
    if recursive:
        inner = _unwrap_inside(inner)
    if compiled is None:
        return inner
    compiled._orig_mod = inner
    return compiled


def _open_compiled(model: nn.Module) -> tuple[nn.Module | None, nn.Module]:
    """Return the compiled module and what it compiles; None for one that is not compiled."""
    eval_frame = sys.modules.get("torch._dynamo.eval_frame")
    if eval_frame is not None and isinstance(model, eval_frame.OptimizedModule):
        return model, model._orig_mod
    return None, model


def _held(container: Any) -> nn.Module:  # noqa: ANN401  (has the attribute `module`)
    held: nn.Module = container.module
    return held


def _containers() -> Iterator[type]:
    for name, classes in _CONTAINERS.items():
        if module := sys.modules.get(name):
            yield from (getattr(module, kind) for kind in classes if hasattr(module, kind))


def _unwrap_inside(module: Any) -> Any:  # noqa: ANN401  (an attribute of a module may be anything)
    if hasattr(module, "module"):
        return _unwrap_inside(module.module)
    for name, child in list(module.named_children()):
        inner = _unwrap_inside(child)
        if inner is not child:
            setattr(module, name, inner)
    return module
