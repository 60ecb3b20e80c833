"""Checkpoint I/O for PyTorch: fast, exact, and nothing is ever lost.

Importing this module loads neither torch nor numpy; the functions that need one load it when they
are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from windlass._rust import __version__
from windlass.checkpoint import Checkpoint
from windlass.errors import (
    BudgetExceeded,
    CheckpointError,
    CheckpointNotFound,
    ChecksumMismatch,
    DestinationError,
    EmptyFile,
    FileChanged,
    FolderLocked,
    GitLfsPointer,
    IncompatibleKeys,
    IndexMismatch,
    InvalidHeader,
    InvalidIndex,
    InvalidName,
    InvalidPickle,
    InvalidSlice,
    MetaParameter,
    ModelError,
    NoMemoryToSave,
    NoSpaceLeft,
    NotARegularFile,
    NotEnoughMemory,
    ReadFailed,
    SaveError,
    SaveFailed,
    SaveFolderNotFound,
    SaveNotPermitted,
    ShardNotFound,
    ShardNotReadable,
    SharedTensors,
    SnapshotTooLarge,
    TensorNotFound,
    TruncatedFile,
    UnsafeShardName,
    UnsupportedDtype,
    UnsupportedParameter,
    UnsupportedTensor,
    WindlassError,
)
from windlass.tensor_info import TensorInfo

if TYPE_CHECKING:
    from windlass.recovery import recover
    from windlass.safe import safe_open
    from windlass.torch import (
        AliasGroup,
        SaveHandle,
        StateDictSplit,
        dtype_byte_size,
        find_aliases,
        get_torch_storage_id,
        get_torch_storage_size,
        id_tensor_storage,
        load,
        load_file,
        load_model,
        load_sharded_checkpoint,
        load_state_dict_from_file,
        load_torch_model,
        save,
        save_async,
        save_file,
        save_model,
        save_torch_model,
        save_torch_state_dict,
        shard_checkpoint,
        split_state_dict_into_shards_factory,
        split_torch_state_dict_into_shards,
    )
    from windlass.verification import verify

#: Public name → module that defines it, imported on first use.
_LAZY = {
    "AliasGroup": "windlass.torch",
    "SaveHandle": "windlass.torch",
    "StateDictSplit": "windlass.torch",
    "dtype_byte_size": "windlass.torch",
    "find_aliases": "windlass.torch",
    "get_torch_storage_id": "windlass.torch",
    "get_torch_storage_size": "windlass.torch",
    "id_tensor_storage": "windlass.torch",
    "load": "windlass.torch",
    "load_file": "windlass.torch",
    "load_model": "windlass.torch",
    "load_sharded_checkpoint": "windlass.torch",
    "load_state_dict_from_file": "windlass.torch",
    "load_torch_model": "windlass.torch",
    "recover": "windlass.recovery",
    "safe_open": "windlass.safe",
    "save": "windlass.torch",
    "save_async": "windlass.torch",
    "save_file": "windlass.torch",
    "save_model": "windlass.torch",
    "save_torch_model": "windlass.torch",
    "save_torch_state_dict": "windlass.torch",
    "shard_checkpoint": "windlass.torch",
    "split_state_dict_into_shards_factory": "windlass.torch",
    "split_torch_state_dict_into_shards": "windlass.torch",
    "verify": "windlass.verification",
}

__all__ = [
    "AliasGroup",
    "BudgetExceeded",
    "Checkpoint",
    "CheckpointError",
    "CheckpointNotFound",
    "ChecksumMismatch",
    "DestinationError",
    "EmptyFile",
    "FileChanged",
    "FolderLocked",
    "GitLfsPointer",
    "IncompatibleKeys",
    "IndexMismatch",
    "InvalidHeader",
    "InvalidIndex",
    "InvalidName",
    "InvalidPickle",
    "InvalidSlice",
    "MetaParameter",
    "ModelError",
    "NoMemoryToSave",
    "NoSpaceLeft",
    "NotARegularFile",
    "NotEnoughMemory",
    "ReadFailed",
    "SaveError",
    "SaveFailed",
    "SaveFolderNotFound",
    "SaveHandle",
    "SaveNotPermitted",
    "ShardNotFound",
    "ShardNotReadable",
    "SharedTensors",
    "SnapshotTooLarge",
    "StateDictSplit",
    "TensorInfo",
    "TensorNotFound",
    "TruncatedFile",
    "UnsafeShardName",
    "UnsupportedDtype",
    "UnsupportedParameter",
    "UnsupportedTensor",
    "WindlassError",
    "__version__",
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
    "recover",
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
    "verify",
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
