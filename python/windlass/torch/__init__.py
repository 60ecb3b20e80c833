"""torch: load files, fill models, split state dicts. All that imports torch is in this package."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401  (only to say what to do where it is missing)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this needs torch: pip install 'windlass[torch]'") from error

from windlass.safe import safe_open
from windlass.split import StateDictSplit, split_state_dict_into_shards_factory
from windlass.torch.files import load_file
from windlass.torch.load import load_sharded_checkpoint
from windlass.torch.split import split_torch_state_dict_into_shards
from windlass.torch.storages import get_torch_storage_id, get_torch_storage_size

__all__ = [
    "StateDictSplit",
    "get_torch_storage_id",
    "get_torch_storage_size",
    "load_file",
    "load_sharded_checkpoint",
    "safe_open",
    "split_state_dict_into_shards_factory",
    "split_torch_state_dict_into_shards",
]
