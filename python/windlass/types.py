"""Type aliases that several modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]

#: Where loaded tensors live: in a private map of the file, or in memory of their own.
Memory: TypeAlias = Literal["mapped", "owned"]

#: How bytes are fetched.
Io: TypeAlias = Literal["auto", "mapped", "buffered"]

#: `progress=`: a bar, none, the default (a bar when it takes long), or `(done, total) -> None`.
Progress: TypeAlias = bool | Callable[[int, int], object] | None
