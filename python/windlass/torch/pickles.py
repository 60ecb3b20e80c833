"""`.bin` checkpoints of torch: one file, or an index and its shards.

Read by `torch.load(weights_only=True, mmap=True)`: no code of the file is run, and tensors are
read as they are touched.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from windlass import _rust
from windlass.errors import (
    CheckpointError,
    EmptyFile,
    FileChanged,
    GitLfsPointer,
    IndexMismatch,
    InvalidPickle,
    NotARegularFile,
    ReadFailed,
    ShardNotFound,
    ShardNotReadable,
)
from windlass.opening import MOST_TRIES, identity, identity_of, is_still

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from windlass.layout import CheckpointFile
    from windlass.opening import Identity

_GIT_LFS_START = b"version https://git-lfs"

#: So much of a map is touched before it is made again, if it has few tensors.
_STRETCH_BYTES = 128 << 20

#: torch opens a tensor in the time in which so much is copied, a few times over.
_BYTES_PER_OPENED_TENSOR = 1 << 20


class PickleShards:
    """All tensors of a `.bin` checkpoint, after the index has been checked against the shards.

    Attributes:
        listed: tensors by name, in index order.
        unlisted: `(tensor, file)` of tensors that the index does not list.
        metadata: torch's version numbers of modules, as `state_dict()._metadata` has them.
        homes: name of a listed tensor → the file that it is in.

    Raises:
        InvalidIndex: the index is not one, or names a file outside its folder.
        IndexMismatch: index and shards disagree.
        InvalidPickle: a file is not one that torch reads safely, or not a dict of tensors.
        ShardNotFound: a file does not exist.
    """

    def __init__(self, file: CheckpointFile, *, weights_only: bool = True) -> None:
        self._weights_only = weights_only
        self.metadata: dict[str, Any] = {}
        self.unlisted: list[tuple[str, str]] = []
        self._identities: dict[str, Identity | None] = {}
        if not file.is_index:
            self.listed = self._read(file.path, None)
            self.homes = dict.fromkeys(self.listed, file.path)
            return
        weight_map, contents = self._read_together(file.path)
        self.listed = _take_listed(weight_map, contents)
        self.unlisted = _take_unlisted(weight_map, contents)
        folder = os.path.dirname(file.path)
        self.homes = {name: os.path.join(folder, shard) for name, shard in weight_map.items()}

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(self.homes.values())

    def stretch(self, path: str) -> int:
        """Return how much of a file may be copied before it is worth while to map it again."""
        return max(_STRETCH_BYTES, self._counts[path] * _BYTES_PER_OPENED_TENSOR)

    def map_again(self, path: str, wanted: Collection[str]) -> dict[str, torch.Tensor]:
        """Return the tensors of a file from a new map, of which no page has been touched.

        None are returned where the file is another one by now, cannot be mapped, or may run code.
        """
        names = [name for name in wanted if self.homes[name] == path]
        before = self._identities[path]
        if not names or not self._weights_only or not zipfile.is_zipfile(path):
            return {}
        if not is_still(path, before):
            return {}
        state = load_pickle(path)
        return {name: state[name] for name in names} if is_still(path, before) else {}

    def _read_together(
        self, path: str
    ) -> tuple[dict[str, str], dict[str, dict[str, torch.Tensor]]]:
        """Read an index and all shards; again, if a save has replaced it meanwhile.

        A save replaces the index before it gives a shard's name to another file.
        """
        folder = os.path.dirname(path)
        for _ in range(MOST_TRIES):
            with _kept_open(path) as before:
                try:
                    weight_map, shards = _rust.read_index(path)
                    contents = {one: self._read(os.path.join(folder, one), path) for one in shards}
                except CheckpointError:
                    if before is None or is_still(path, before):
                        raise
                    continue
                if before is None or is_still(path, before):
                    return weight_map, contents
        message = f"`{path}`: the index was replaced {MOST_TRIES} times while its files were opened"
        raise FileChanged(message)

    def _read(self, path: str, index: str | None) -> dict[str, torch.Tensor]:
        self._identities[path] = identity(path)
        state = load_pickle(path, index, weights_only=self._weights_only)
        self.metadata.update(getattr(state, "_metadata", None) or {})
        return dict(state)


@contextlib.contextmanager
def _kept_open(path: str) -> Iterator[Identity | None]:
    """Hold a file open, if it can be: then no other file gets its inode. Say what it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # No FIFO is waited for.
    except OSError:
        yield None
        return
    try:
        yield identity_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _take_listed(
    weight_map: dict[str, str], contents: dict[str, dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    for name, shard in weight_map.items():
        if name not in contents[shard]:
            message = f"tensor `{name}` is listed in the index as part of `{shard}`, which lacks it"
            raise IndexMismatch(message)
    return {name: contents[shard][name] for name, shard in weight_map.items()}


def _take_unlisted(
    weight_map: dict[str, str], contents: dict[str, dict[str, torch.Tensor]]
) -> list[tuple[str, str]]:
    homes = dict(weight_map)
    for shard, tensors in contents.items():
        for name in tensors:
            home = homes.setdefault(name, shard)
            if home != shard:
                message = f"tensor `{name}` is in two shards, `{home}` and `{shard}`"
                raise IndexMismatch(message)
    return [(name, shard) for name, shard in homes.items() if name not in weight_map]


def load_pickle(
    path: str, index: str | None = None, *, weights_only: bool = True
) -> dict[str, Any]:
    """Load one file, mapped where its format allows; `index` is the file that names it, if any.

    With `weights_only=False` the file may run whatever code is in it.

    Raises:
        ShardNotFound: no such file.
        InvalidPickle: torch refuses it, or it holds no dict.
    """
    _check_file(path, index)
    try:
        mapped = zipfile.is_zipfile(path)  # The format before torch 1.6 cannot be mapped.
        state = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mapped)
    except OSError as error:
        message = f"`{path}`: reading failed: {error}"
        raise ReadFailed(message) from error
    except MemoryError:
        raise
    except Exception as error:  # The unpickler lets every kind of error through.
        message = f"`{path}`: torch.load({weights_only=}) refuses this file: {error}"
        raise InvalidPickle(message) from error
    if not isinstance(state, dict):
        message = f"`{path}`: expected a dict of tensors, found {type(state).__name__}"
        raise InvalidPickle(message)
    strangers = [key for key in state if not isinstance(key, str)]
    if strangers:
        message = f"`{path}`: expected names of tensors, found the key {strangers[0]!r}"
        raise InvalidPickle(message)
    return state


def _check_file(path: str, index: str | None) -> None:
    listed = f" (listed in `{index}`)" if index else ""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            message = f"`{path}`: expected a regular file{listed}"
            raise NotARegularFile(message)
        with open(path, "rb") as file:
            start = file.read(len(_GIT_LFS_START))
    except FileNotFoundError as error:
        message = f"`{path}`: no such file{listed}"
        raise ShardNotFound(message) from error
    except PermissionError as error:
        message = f"`{path}`: permission denied{listed}"
        raise ShardNotReadable(message) from error
    if not start:
        message = f"`{path}`: the file is empty (0 bytes)"
        raise EmptyFile(message)
    if start == _GIT_LFS_START:
        message = f"`{path}`: this is a git-lfs pointer, not the weights; run `git lfs pull`"
        raise GitLfsPointer(message)
