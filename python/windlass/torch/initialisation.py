"""Modules built without drawing their first weights, which a load would overwrite anyway."""

from __future__ import annotations

import contextlib
import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

    Inside, the functions of `torch.nn.init` that fill a tensor do nothing and return nothing. Other
    threads go on drawing. When the last block is left, nested or of another thread, torch has the
    functions again that it had before the first.

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
    token = _weights_are_drawn.set(False)
    _switch.enter()
    try:
        yield
    finally:
        _switch.leave()
        _weights_are_drawn.reset(token)


class _Switch:
    """Replaces the functions of torch while at least one block is entered, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._before: dict[str, Callable[..., Any]] = {}

    def enter(self) -> None:
        """Count one block in; the first replaces the functions."""
        with self._lock:
            if not self._entered:
                self._before = {name: getattr(torch.nn.init, name) for name in TORCH_INIT_FUNCTIONS}
                for name, function in self._before.items():
                    setattr(torch.nn.init, name, _unless_left_out(function))
            self._entered += 1

    def leave(self) -> None:
        """Count one block out; the last brings the functions back."""
        with self._lock:
            self._entered -= 1
            if not self._entered:
                for name, function in self._before.items():
                    setattr(torch.nn.init, name, function)


_switch = _Switch()


def _unless_left_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does nothing in threads that leave weights as they are."""

    @functools.wraps(function)
    def draw(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (functions of every kind)
        return function(*args, **kwargs) if draws_weights() else None

    return draw
