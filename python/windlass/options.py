"""Options that many functions take: checked before anything is opened or changed."""

from __future__ import annotations

#: More reader threads than this only cost memory.
MAX_THREADS = 1024

_IO = ("auto", "mapped", "buffered", "direct", "uring")
_CACHE = ("keep", "drop")
_MEMORY = ("mapped", "owned")
_PRETRAINED_MEMORY = ("auto", *_MEMORY)


#: safetensors' words for how bytes are fetched.
_BACKENDS = ("mmap", "pread")


def is_pread(backend: str) -> bool:
    """Whether safetensors' `backend=` asks for reading, and not for a map.

    Raises:
        ValueError: an unknown word.
    """
    check_word("backend", backend, _BACKENDS)
    return backend == "pread"


def check_options(
    *,
    memory: str = "mapped",
    io: str = "auto",
    cache: str = "keep",
    threads: int | None = None,
) -> None:
    """Raise for a value that no function takes.

    Raises:
        ValueError: an unknown `memory`, `io` or `cache`, or `threads` outside 1 to 1024.
        TypeError: `threads` is not an int.
    """
    check_word("memory", memory, _MEMORY)
    check_word("io", io, _IO)
    check_word("cache", cache, _CACHE)
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool):
        message = f"threads should be an int or None, found {threads!r}"
        raise TypeError(message)
    if not 1 <= threads <= MAX_THREADS:
        message = f"threads should be 1 to {MAX_THREADS}, found {threads}"
        raise ValueError(message)


def check_pretrained_memory(memory: str) -> None:
    """Raise `ValueError` for a `memory` that `from_pretrained` does not take."""
    check_word("memory", memory, _PRETRAINED_MEMORY)


def check_timeout(lock_timeout: float) -> None:
    """Raise `ValueError` for what is no number of seconds to wait."""
    if not lock_timeout >= 0:  # Nor is a NaN.
        message = f"lock_timeout should be 0 seconds or more, found {lock_timeout!r}"
        raise ValueError(message)


def check_word(name: str, found: str, expected: tuple[str, ...]) -> None:
    """Raise `ValueError` for a word that is none of the expected."""
    if found not in expected:
        message = f"{name} should be one of {', '.join(expected)}, found {found!r}"
        raise ValueError(message)
