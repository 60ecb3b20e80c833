"""Modules built without drawing their first weights, which a load would overwrite anyway."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What `torch.nn.init` draws with; modules of torch call these by name, when they are built.
TORCH_INIT_FUNCTIONS = {
    name: getattr(torch.nn.init, name)
    for name in (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "constant_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "uniform",
        "normal",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
    )
}

_weights_are_drawn = ContextVar("_weights_are_drawn", default=True)


def draws_weights() -> bool:
    """Whether models are to initialise their weights: not inside `no_init_weights`.

    Example:
        >>> draws_weights()
        True
    """
    return _weights_are_drawn.get()


@contextlib.contextmanager
def no_init_weights(_enable: bool = True) -> Iterator[None]:  # noqa: FBT001, FBT002
    """Build modules whose weights hold whatever was in memory.

    Inside, the functions of `torch.nn.init` that fill a tensor do nothing and return nothing, in
    every thread of the process. Leaving restores what was there on entry, so it can be nested.

    Args:
        _enable: false leaves everything as it is.

    Example:
        >>> with no_init_weights():
        ...     torch.nn.init.constant_(torch.zeros(2), 1.0)
        >>> torch.nn.init.constant_(torch.zeros(2), 1.0)
        tensor([1., 1.])
    """
    if not _enable:
        yield
        return
    before = {name: getattr(torch.nn.init, name) for name in TORCH_INIT_FUNCTIONS}
    token = _weights_are_drawn.set(False)
    for name in before:
        setattr(torch.nn.init, name, _leave)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch.nn.init, name, function)
        _weights_are_drawn.reset(token)


def _leave(*_: Any, **__: Any) -> None:  # noqa: ANN401  (stands for functions of every kind)
    """Initialise nothing."""
