"""Torch's default dtype while a model is built: one for all threads, so they take turns."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import torch

from windlass.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How often a thread that waits looks at what the others do.
LOOK_SECONDS = 5.0

#: Builders that are at the same instruction at so many looks, for ten minutes, wait for something
#: themselves; one call that fills a large tensor takes less. Looks are counted, and not seconds,
#: for a process may be stopped for any time.
PATIENCE = 120


class _DefaultDtype:
    """Torch's default dtype, which all threads have in common.

    Threads that want the same one have it at a time; who wants another one waits for them. So a
    constructor may build parts in threads of its own, as long as these want the dtype of the whole.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users: list[int] = []
        self._waiting: dict[int, torch.dtype | None] = {}
        self._before = torch.get_default_dtype()

    @contextlib.contextmanager
    def use(self, dtype: torch.dtype | None) -> Iterator[None]:
        """Have a dtype, or the one that there is without, as the default.

        Raises:
            ModelError: those who have another one wait for this thread.
        """
        me = threading.get_ident()
        with self._changed:
            self._wait_for_turn(dtype, me)
            outer = torch.get_default_dtype()
            if not self._users:
                self._before = outer
            self._users.append(me)
            torch.set_default_dtype(dtype or outer)
        try:
            yield
        finally:
            with self._changed:
                self._users.remove(me)
                if not self._users:
                    torch.set_default_dtype(self._before)
                elif me in self._users:
                    torch.set_default_dtype(outer)
                self._changed.notify_all()

    def _is_free(self, dtype: torch.dtype | None, me: int) -> bool:
        if all(user == me for user in self._users):
            return True
        now = torch.get_default_dtype()
        return now == (dtype or (now if me in self._users else self._before))

    def _wait_for_turn(self, dtype: torch.dtype | None, me: int) -> None:
        self._waiting[me] = dtype
        try:
            if self._is_deadlock():
                raise ModelError(_waits_for_ever(dtype))
            places, looks = self._places(), 0
            while not self._changed.wait_for(lambda: self._is_free(dtype, me), LOOK_SECONDS):
                if (now := self._places()) != places:
                    places, looks = now, 0
                elif (looks := looks + 1) >= PATIENCE:
                    raise ModelError(_waits_for_ever(dtype))
        finally:
            del self._waiting[me]

    def _is_deadlock(self) -> bool:
        """Whether all who have the dtype wait for another one, and nobody's turn has come."""
        return self._waiting.keys() >= set(self._users) and not any(
            self._is_free(dtype, thread) for thread, dtype in self._waiting.items()
        )

    def _places(self) -> list[tuple[int, int]]:
        """Return the instruction that each thread is at that has the dtype."""
        frames = sys._current_frames()
        found = (frames.get(user) for user in self._users)
        return [(id(frame), frame.f_lasti) for frame in found if frame is not None]


def _waits_for_ever(dtype: torch.dtype | None) -> str:
    return (
        f"a model of {dtype or 'the default dtype'} cannot be built now: torch has one default "
        f"dtype for all threads, and those that build models of {torch.get_default_dtype()} wait, "
        "it seems, for this thread, or are in one call for very long; build parts of another dtype "
        "than the model's in the thread of its constructor, or before it"
    )


_default = _DefaultDtype()


def _forget_other_threads() -> None:
    """In a child of a fork, where there are none."""
    global _default  # noqa: PLW0603
    _default = _DefaultDtype()


os.register_at_fork(after_in_child=_forget_other_threads)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Build models whose parameters are of a dtype, unless they say otherwise.

    Raises:
        ValueError: the dtype is not a floating-point one.
        ModelError: threads that build models of other dtypes wait for this one.
    """
    if dtype is not None and not dtype.is_floating_point:
        message = f"a model should be built under a floating-point dtype, found {dtype}"
        raise ValueError(message)
    with _default.use(dtype):
        yield
