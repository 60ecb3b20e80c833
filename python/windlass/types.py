"""Type aliases that several modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]

#: Where loaded tensors live: in a private map of the file, or in memory of their own.
Memory: TypeAlias = Literal["mapped", "owned"]

#: The same, or as suits the checkpoint.
PretrainedMemory: TypeAlias = Literal["auto", "mapped", "owned"]

#: How bytes are fetched: as suits file and machine, or by a memory map, through the page cache, or
#: past it; `"uring"` as `"auto"`, but by io_uring, several reads at a time from each thread.
Io: TypeAlias = Literal["auto", "mapped", "buffered", "direct", "uring"]

#: What becomes of the page cache: it keeps what was read, or is left as it was before.
Cache: TypeAlias = Literal["keep", "drop"]

#: How much of what is mapped is read ahead: all that half of the available memory holds, none, or a
#: size in bytes or as text such as `"2GB"`.
Prefetch: TypeAlias = bool | int | str

#: How shards are cut: as the hub does, or as `shard_checkpoint` of transformers 4.46 did.
ShardRule: TypeAlias = Literal["hub", "shard_checkpoint"]

#: What a tensor counts as: its whole storage, or its own elements.
SizesOf: TypeAlias = Literal["storage", "logical"]

#: `progress=`: a bar, none, the default (a bar when it takes long), or `(done, total) -> None`.
Progress: TypeAlias = bool | Callable[[int, int], object] | None
