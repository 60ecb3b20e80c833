"""What the operating system refused, as an error of a save."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from windlass import _rust
from windlass.errors import (
    InvalidName,
    NoSpaceLeft,
    SaveFailed,
    SaveFolderNotFound,
    SaveNotPermitted,
    SharedTensors,
    TidyingFailed,
    UnsupportedTensor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from windlass.types import PathLike

_KINDS: dict[int | None, type[SaveFailed]] = {
    errno.EACCES: SaveNotPermitted,
    errno.EPERM: SaveNotPermitted,
    errno.ENOENT: SaveFolderNotFound,
    errno.ENOSPC: NoSpaceLeft,
    errno.EDQUOT: NoSpaceLeft,
}


def is_in_place(error: BaseException) -> bool:
    """Whether an exception came when readers found the new checkpoint already."""
    return isinstance(error, TidyingFailed) or _rust.IN_PLACE in getattr(error, "__notes__", ())


@contextmanager
def saving_to(path: PathLike) -> Iterator[None]:
    """Have errors about what is to be saved say where to, and refuse a path that is none.

    Raises:
        SaveFailed: a path that is empty, or has a NUL.
    """
    target = os.fspath(path)
    shown = target if isinstance(target, str) else os.fsdecode(target)
    if not shown or "\0" in shown:
        reason = OSError(errno.EINVAL, "expected a path, found " + (ascii(shown) or "none"))
        raise refusal(ascii(shown), "saving", reason)
    try:
        yield
    except (InvalidName, SharedTensors, UnsupportedTensor) as error:
        if not str(error).startswith(f"`{shown}`: "):
            error.args = (f"`{shown}`: {error}",)
        raise


def refusal(
    path: str,
    what: str,
    error: OSError,
    *,
    kind: type[SaveFailed] | None = None,
    reason: str | None = None,
) -> SaveFailed:
    """Return what to raise for what the system says of a path.

    Args:
        path: the file or folder.
        what: what could not be done.
        error: what the system says.
        kind: another class than that of its number.
        reason: other words than its own.
    """
    failure = (kind or _KINDS.get(error.errno, SaveFailed))(
        f"`{path}`: {what}: {reason or error.strerror or error}"
    )
    failure.errno, failure.filename = error.errno, path
    return failure
