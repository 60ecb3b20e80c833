"""torch: load, save and split checkpoints. Everything that imports torch is in this package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

try:
    import torch as _torch  # noqa: F401  (only to say what to do where it is missing)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this needs torch: pip install 'windlass[torch]'") from error

if TYPE_CHECKING:
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

#: Public name → module that defines it, imported on first use: who reads tensors does not pay for
#: what saves them.
_LAZY = {
    "AliasGroup": "windlass.torch.aliases",
    "SaveHandle": "windlass.torch.background",
    "StateDictSplit": "windlass.split",
    "dtype_byte_size": "windlass.torch.legacy_shards",
    "find_aliases": "windlass.torch.aliases",
    "get_torch_storage_id": "windlass.torch.storages",
    "get_torch_storage_size": "windlass.torch.storages",
    "id_tensor_storage": "windlass.torch.storages",
    "load": "windlass.torch.load_saved",
    "load_file": "windlass.torch.files",
    "load_model": "windlass.torch.load_saved",
    "load_sharded_checkpoint": "windlass.torch.load_sharded",
    "load_state_dict_from_file": "windlass.torch.load_saved",
    "load_torch_model": "windlass.torch.load_saved",
    "safe_open": "windlass.safe",
    "save": "windlass.torch.one_file",
    "save_async": "windlass.torch.background",
    "save_file": "windlass.torch.one_file",
    "save_model": "windlass.torch.one_file",
    "save_torch_model": "windlass.torch.save_checkpoint",
    "save_torch_state_dict": "windlass.torch.save_checkpoint",
    "shard_checkpoint": "windlass.torch.legacy_shards",
    "split_state_dict_into_shards_factory": "windlass.split",
    "split_torch_state_dict_into_shards": "windlass.torch.split",
}

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


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
