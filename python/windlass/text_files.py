"""Small files that are replaced whole: a reader finds the old one or the new one."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from windlass.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from windlass.types import PathLike


class _Staged(NamedTuple):
    """A new file that waits beside the one that it is to replace."""

    path: str
    target: str


def write_text(path: PathLike, text: str) -> None:
    """Write a file of UTF-8, by way of a new one that takes its place.

    A link is written through, and a file that was there keeps its mode.

    Raises:
        SaveFailed: the system refused; the file is what it was.
    """
    with staged_files({os.fspath(path): text.encode()}) as put_in_place:
        put_in_place()


@contextmanager
def staged_files(
    contents: Mapping[str, bytes], *, durable: bool = False
) -> Iterator[Callable[[], None]]:
    """Write new files under other names, so that little can go wrong when they take their places.

    Args:
        contents: content by path, in folders that are there.
        durable: have contents, and then names, on the disk.

    Yields:
        What puts them in place. Without it they are removed at the end.

    Raises:
        SaveFailed: the system refused.
    """
    with ExitStack() as held:
        staged = [_stage(held, path, data, durable=durable) for path, data in contents.items()]
        yield lambda: _put_in_place(staged, durable=durable)


def _stage(held: ExitStack, path: str, data: bytes, *, durable: bool) -> _Staged:
    target = os.path.realpath(path)
    staged = f"{target}.windlass-{secrets.token_hex(8)}"
    try:
        file = held.enter_context(open(staged, "xb"))  # noqa: SIM115
        held.callback(_remove, staged)
        # By this, saves that tidy up in the folder tell it from what a crash has left.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(data)
        file.flush()
        os.close(os.dup(file.fileno()))  # Network file systems tell only now that there is no room.
        if os.path.exists(target):
            os.chmod(staged, os.stat(target).st_mode & 0o7777)
        if durable:
            os.fsync(file)
    except OSError as error:
        raise refusal(target, "cannot write it", error) from error
    return _Staged(staged, target)


def _put_in_place(staged: list[_Staged], *, durable: bool) -> None:
    for path, target in staged:
        try:
            os.replace(path, target)
        except OSError as error:
            raise refusal(target, "cannot write it", error) from error
    for folder in {os.path.dirname(target) for _, target in staged} if durable else ():
        sync_folder(folder)


def sync_folder(folder: str) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        SaveFailed: the system refused.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise refusal(folder, "cannot sync it", error) from error


def _remove(path: str) -> None:
    with suppress(OSError):  # What is left is removed by the next save.
        os.unlink(path)
