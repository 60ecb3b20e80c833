"""Checkpoint I/O for PyTorch: fast, exact, and nothing is ever lost.

Importing this module loads neither torch nor numpy; the functions that need one load it when they
are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from windlass._rust import __version__
from windlass.checkpoint import Checkpoint, TensorInfo
from windlass.errors import (
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
    MetaParameter,
    ModelError,
    NoSpaceLeft,
    NotARegularFile,
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

if TYPE_CHECKING:
    from windlass.recovery import recover
    from windlass.safe import safe_open
    from windlass.torch import (
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
    )
    from windlass.verification import verify

#: Public name → module that defines it, imported on first use.
_LAZY = {
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
    "verify": "windlass.verification",
}

__all__ = [
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
    "MetaParameter",
    "ModelError",
    "NoSpaceLeft",
    "NotARegularFile",
    "ReadFailed",
    "SaveError",
    "SaveFailed",
    "SaveFolderNotFound",
    "SaveNotPermitted",
    "ShardNotFound",
    "ShardNotReadable",
    "SharedTensors",
    "SnapshotTooLarge",
    "TensorInfo",
    "TensorNotFound",
    "TruncatedFile",
    "UnsafeShardName",
    "UnsupportedDtype",
    "UnsupportedParameter",
    "UnsupportedTensor",
    "WindlassError",
    "__version__",
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
