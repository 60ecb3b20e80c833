"""`TensorInfo`: what a header says about one tensor."""

from __future__ import annotations

from typing import NamedTuple


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
