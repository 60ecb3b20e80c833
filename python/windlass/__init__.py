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
    SharedTensors,
    ShardNotFound,
    ShardNotReadable,
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
    from windlass.safe import safe_open
    from windlass.torch import load_file, load_sharded_checkpoint

#: Public name → module that defines it, imported on first use.
_LAZY = {
    "load_file": "windlass.torch",
    "load_sharded_checkpoint": "windlass.torch",
    "safe_open": "windlass.safe",
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
    "load_file",
    "load_sharded_checkpoint",
    "safe_open",
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
