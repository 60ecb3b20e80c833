"""`recover`: what interrupted saves left in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from windlass import _rust
from windlass.options import check_timeout

if TYPE_CHECKING:
    from windlass.types import PathLike


class Recovered(NamedTuple):
    """A leftover that was dealt with.

    Attributes:
        name: name of the work folder or temporary file, which is gone now.
        outcome: `"undone"`: no reader could find it, so it was removed: a save that had not come to
            its commit, or the last of one that was done. `"completed"`: readers could find it, so
            it was carried to its end. `"superseded"`: somebody else has saved since, and theirs
            stays.
    """

    name: str
    outcome: Literal["undone", "completed", "superseded"]


def recover(folder: PathLike, *, lock_timeout: float = 600.0) -> list[Recovered]:
    """Deal with whatever saves that were interrupted left in a folder.

    The next save into the folder does the same by itself. Readers find a whole checkpoint before,
    meanwhile and after.

    Args:
        folder: the folder.
        lock_timeout: seconds to wait for a save that is going on.

    Raises:
        FolderLocked: a save has been going on all the time.
        SaveFailed: the system refused.
        ValueError: a negative time.

    Example:
        >>> recover(folder)
        []
    """
    check_timeout(lock_timeout)
    found = _rust.recover(folder, lock_timeout)
    return [Recovered(*cast("tuple[str, Literal['undone']]", one)) for one in found]
