"""Memory that the system refuses, as one error that says for what it was wanted."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING

from windlass import _rust
from windlass.errors import NotEnoughMemory, WindlassError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is in a `RuntimeError` for want of memory: the name of torch's allocator of the host, and
#: Python's words where there is no memory for a thread, or where the user has too many of them.
_WORDS = ("DefaultCPUAllocator", "can't start new thread")


@contextmanager
def memory_for(what: str, kind: type[NotEnoughMemory] = NotEnoughMemory) -> Iterator[None]:
    """Raise one error for memory that cannot be had, whoever has asked for it.

    Args:
        what: the tensor, file or buffer, for the message.
        kind: the error.

    Raises:
        NotEnoughMemory: Python, numpy or torch did not get the memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, WindlassError) or not _is_about_memory(error):
            raise
        told = kind(f"{what}: not enough memory: {str(error).splitlines()[0] or 'none left'}")
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        raise told from error


def half_of_memory() -> int:
    """Half of what is available: the rest is for those who work with it."""
    available = _rust.available_memory()
    return (1 << 63) if available is None else available // 2


#: Less is not compared with the limits: asking for them takes longer than to read a small tensor.
LEAST_COMPARED = 64 << 20


def refuse_beyond_limit(nbytes: int, what: str) -> None:
    """Refuse memory that the limits of the control groups do not leave, from 64 MiB on.

    The system gives it, and ends the process when it is touched.

    Raises:
        NotEnoughMemory: more is needed than they leave.
    """
    if nbytes < LEAST_COMPARED:
        return
    room = _rust.memory_within_limits()
    if room is not None and nbytes > room:
        message = (
            f"{what}: not enough memory: {nbytes} bytes are needed, the memory limit of this "
            f"process (its control group) leaves {room}"
        )
        raise NotEnoughMemory(message)


def check_room(nbytes: int) -> None:
    """Make sure that about so much memory can be had; none of it is touched.

    Args:
        nbytes: how many bytes.

    Raises:
        MemoryError: it cannot.
    """
    try:
        mmap.mmap(-1, nbytes).close()
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes are not to be had") from error


def _is_about_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)
