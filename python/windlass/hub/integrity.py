"""Is a file that has been fetched the one that the hub meant? Its name in the cache is its hash."""

from __future__ import annotations

import hashlib
import os
import re

from windlass.errors import CorruptDownload

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def check_hash(path: str, source: str) -> None:
    """Compare a file of the cache with its hash, and throw it away if it is another file.

    Large files are known by the SHA-256 of their bytes, small ones by the SHA-1 that git gives
    them (or, behind a mirror, of their bytes). Where the cache has no links, the name of a file
    does not tell its hash, and nothing is compared.

    Args:
        path: a file of a snapshot.
        source: repository and revision, for the message.

    Raises:
        CorruptDownload: the bytes are others. The file is no longer in the cache.
    """
    blob = os.path.realpath(path)
    expected = os.path.basename(blob)
    found = _hashes(blob, expected)
    if not found or expected in found:
        return
    for broken in (path, blob):
        os.unlink(broken)
    message = (
        f"{source}: `{os.path.basename(path)}` arrived damaged: its hash should be {expected}, "
        f"found {found[0]}. It has been removed from the cache; load again to fetch it again."
    )
    raise CorruptDownload(message)


def _hashes(blob: str, expected: str) -> list[str]:
    """Return what may be the hash of a file, as far as the form of `expected` says."""
    with open(blob, "rb") as file:
        if _SHA256.fullmatch(expected):
            return [hashlib.file_digest(file, "sha256").hexdigest()]
        if not _SHA1.fullmatch(expected):
            return []
        plain = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False))
        file.seek(0)
        git = hashlib.sha1(b"blob %d\0" % os.path.getsize(blob), usedforsecurity=False)
        while piece := file.read(2**20):
            git.update(piece)
        return [git.hexdigest(), plain.hexdigest()]
