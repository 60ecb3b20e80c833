"""What the operating system refused, as an error of a save."""

from __future__ import annotations

import errno

from windlass import _rust
from windlass.errors import (
    NoSpaceLeft,
    SaveFailed,
    SaveFolderNotFound,
    SaveNotPermitted,
    TidyingFailed,
)

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
