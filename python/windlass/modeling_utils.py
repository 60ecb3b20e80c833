"""Names of `transformers.modeling_utils` 4.46, for code that imports them from there.

Each does what it did, and says in its documentation where it does better.
"""

from __future__ import annotations

from windlass.sizes import convert_file_size_to_int
from windlass.torch import load_sharded_checkpoint
from windlass.torch.legacy_shards import dtype_byte_size, shard_checkpoint
from windlass.torch.storages import id_tensor_storage

__all__ = [
    "convert_file_size_to_int",
    "dtype_byte_size",
    "id_tensor_storage",
    "load_sharded_checkpoint",
    "shard_checkpoint",
]
