"""Small text files that are replaced whole: a reader finds the old one or the new one."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from windlass.refusals import refusal

if TYPE_CHECKING:
    from windlass.types import PathLike


def write_text(path: PathLike, text: str) -> None:
    """Write a file of UTF-8, by way of a new one that takes its place.

    A link is written through, and a file that was there keeps its mode.

    Raises:
        SaveFailed: the system refused; the file is what it was.
    """
    target = os.path.realpath(os.fspath(path))
    staged = f"{target}.windlass-{secrets.token_hex(4)}"
    try:
        _write(staged, text, like=target)
        os.replace(staged, target)
    except OSError as error:
        _remove(staged)
        raise refusal(target, "cannot write it", error) from error
    except BaseException:
        _remove(staged)
        raise


def _write(path: str, text: str, *, like: str) -> None:
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    if os.path.exists(like):
        os.chmod(path, os.stat(like).st_mode & 0o7777)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
