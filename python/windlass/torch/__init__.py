"""torch: load, save and split checkpoints. Everything that imports torch is in this package."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401  (only to say what to do where it is missing)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this needs torch: pip install 'windlass[torch]'") from error

from windlass.safe import safe_open
from windlass.split import StateDictSplit, split_state_dict_into_shards_factory
from windlass.torch.aliases import AliasGroup, find_aliases
from windlass.torch.background import SaveHandle, save_async
from windlass.torch.files import load_file
from windlass.torch.legacy_shards import dtype_byte_size, shard_checkpoint
from windlass.torch.load_saved import (
    load,
    load_model,
    load_state_dict_from_file,
    load_torch_model,
)
from windlass.torch.load_sharded import load_sharded_checkpoint
from windlass.torch.one_file import save, save_file, save_model
from windlass.torch.save_checkpoint import save_torch_model, save_torch_state_dict
from windlass.torch.split import split_torch_state_dict_into_shards
from windlass.torch.storages import (
    get_torch_storage_id,
    get_torch_storage_size,
    id_tensor_storage,
)

__all__ = [
    "AliasGroup",
    "SaveHandle",
    "StateDictSplit",
    "dtype_byte_size",
    "find_aliases",
    "get_torch_storage_id",
    "get_torch_storage_size",
    "id_tensor_storage",
    "load",
    "load_file",
    "load_model",
    "load_sharded_checkpoint",
    "load_state_dict_from_file",
    "load_torch_model",
    "safe_open",
    "save",
    "save_async",
    "save_file",
    "save_model",
    "save_torch_model",
    "save_torch_state_dict",
    "shard_checkpoint",
    "split_state_dict_into_shards_factory",
    "split_torch_state_dict_into_shards",
]
