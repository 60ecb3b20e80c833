"""`Checkpoint`: what is in a file or folder, without reading a tensor and without a framework."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from windlass import _rust
from windlass.layout import find_safetensors
from windlass.opening import open_found

if TYPE_CHECKING:
    from windlass.layout import CheckpointFile
    from windlass.types import PathLike


class TensorInfo(NamedTuple):
    """Where one tensor is, and what.

    Attributes:
        dtype: name in the header, such as `"BF16"`; see `windlass._rust.DTYPES`.
        shape: length of each dimension; empty for a scalar.
        shard: file that holds it, as the index names it.
        file_range: first byte and end within that file.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: str
    file_range: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.file_range[1] - self.file_range[0]


class ReadPlan(NamedTuple):
    """How all tensors would be read.

    Attributes:
        reads: number of reads, after merging neighbours and cutting into chunks.
        nbytes: bytes that they deliver.
    """

    reads: int
    nbytes: int


class Checkpoint(Mapping[str, TensorInfo]):
    """A read-only mapping from tensor name to `TensorInfo`, over one file or many shards.

    Opening reads and checks every header, several at a time, and holds no file open. Iteration is
    in index order; for a single file, in the order of its bytes.

    Args:
        path: a safetensors file, an index file (`*.json`), or a folder with either.
        strict_format: also refuse duplicate keys, headers that do not begin with `{`, and unknown
            fields, which safetensors accepts.

    Raises:
        CheckpointNotFound: nothing to read there.
        ShardNotFound: a file does not exist.
        InvalidHeader: a file breaks the format.
        InvalidIndex: the index is not one, or names a file outside its folder.
        IndexMismatch: index and headers disagree.

    Example:
        >>> checkpoint = Checkpoint(folder)
        >>> checkpoint["embed.weight"].shape
        (100, 16)
    """

    def __init__(self, path: PathLike, *, strict_format: bool = False) -> None:
        def open_table(file: CheckpointFile) -> tuple[_rust.Checkpoint, str]:
            opener = _rust.Checkpoint.open_index if file.is_index else _rust.Checkpoint.open_file
            return opener(file.path, strict_format), file.path

        self._table, self.path = open_found(lambda: find_safetensors(path), open_table)
        self._shards = self._table.shard_names()

    def __getitem__(self, name: str) -> TensorInfo:
        dtype, shape, shard, start, end = self._table.info(name)
        return TensorInfo(dtype, shape, self._shards[shard], (start, end))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.names())

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._table

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}: {len(self)} tensors in {len(self._shards)} files)"

    @property
    def shards(self) -> list[str]:
        """File names, in the order of their first mention."""
        return list(self._shards)

    @property
    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of all files together; the last file wins."""
        merged: dict[str, str] = {}
        for shard in range(len(self._shards)):
            merged.update(self._table.shard_metadata(shard) or {})
        return merged

    @property
    def index_metadata(self) -> dict[str, Any]:
        """The `metadata` of the index; empty for a single file."""
        metadata = json.loads(self._table.index_metadata() or "{}")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def unlisted(self) -> dict[str, str]:
        """Tensors that a file holds and the index does not list: name → file."""
        return dict(self._table.unlisted())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return self.plan().nbytes

    def plan(self) -> ReadPlan:
        """Plan reading every tensor, without reading any."""
        return ReadPlan(*self._table.plan())
