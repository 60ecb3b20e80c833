"""Every exception that windlass raises on purpose.

Each is also the builtin that fits, so code that catches builtins, as that
written for transformers and huggingface_hub does, keeps catching it. (Code
that catches `safetensors.SafetensorError` has to name a class of these.)::

    WindlassError
    ├── CheckpointError                  something is wrong with files
    │   ├── CheckpointNotFound           (ValueError, FileNotFoundError)
    │   ├── ShardNotFound                (FileNotFoundError)
    │   ├── ShardNotReadable             (PermissionError)
    │   ├── NotARegularFile              (OSError) a folder, a FIFO, a device
    │   ├── ReadFailed                   (OSError) the system refused a read
    │   ├── FileChanged                  (OSError) shrunk, replaced or gone since it was opened
    │   ├── InvalidHeader                (ValueError) not a whole, well-formed safetensors file
    │   │   ├── EmptyFile
    │   │   ├── GitLfsPointer
    │   │   └── TruncatedFile
    │   ├── InvalidPickle                (ValueError) a `.bin` file that torch cannot read safely
    │   ├── InvalidIndex                 (ValueError) the index file is not one
    │   │   └── UnsafeShardName          a shard name that leaves the folder
    │   ├── IndexMismatch                (RuntimeError) index and shards disagree
    │   ├── ChecksumMismatch             (ValueError) bytes are not those that were saved
    │   ├── TensorNotFound               (KeyError)
    │   └── UnsupportedDtype             (TypeError) the framework has no such dtype
    ├── ModelError                       (RuntimeError) the model cannot take the checkpoint
    │   ├── IncompatibleKeys             names missing, unexpected or of another shape
    │   ├── MetaParameter                a parameter without memory
    │   └── UnsupportedParameter         subclass, layout or view that must not be filled
    ├── SaveError                        a save did not happen; the old checkpoint is whole
    │   ├── SaveFailed                   (OSError) the system refused a part of it
    │   │   ├── NoSpaceLeft              the new files do not fit beside the old ones
    │   │   ├── SaveNotPermitted         (PermissionError)
    │   │   └── SaveFolderNotFound       (FileNotFoundError)
    │   ├── FolderLocked                 (TimeoutError) another save holds the folder
    │   ├── UnsupportedTensor            (ValueError) a value that no safetensors file can hold
    │   ├── InvalidName                  (ValueError) a name that no file may hold
    │   ├── SharedTensors                (RuntimeError) names that share memory
    │   └── NoMemoryToSave               (NotEnoughMemory) what a save needs beside the tensors
    │       └── SnapshotTooLarge         the copy for `save_async` does not fit
    ├── NotEnoughMemory                  (MemoryError) the system has none left for a tensor or file
    ├── InvalidSlice                     (IndexError) an index that is none of the tensor
    ├── BudgetExceeded                   (MemoryError) a stream may not take the memory it needs
    └── DestinationError                 (ValueError) memory handed to the engine does not fit

The Rust core has an enum of the same cases; the binding maps one to the other.
"""

from __future__ import annotations

__all__ = [
    "BudgetExceeded",
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
    "SaveNotPermitted",
    "ShardNotFound",
    "ShardNotReadable",
    "SharedTensors",
    "SnapshotTooLarge",
    "TensorNotFound",
    "TruncatedFile",
    "UnsafeShardName",
    "UnsupportedDtype",
    "UnsupportedParameter",
    "UnsupportedTensor",
    "WindlassError",
]


class WindlassError(Exception):
    """Base of every exception here; catch it to catch all of windlass."""

    def __str__(self) -> str:
        """Return the message itself (`KeyError` would quote it, `OSError` would add a number)."""
        return str(self.args[0]) if self.args else ""


class CheckpointError(WindlassError):
    """Something is wrong with a checkpoint's files."""


class CheckpointNotFound(CheckpointError, ValueError, FileNotFoundError):
    """The folder holds no index and no weight file, or does not exist."""


class ShardNotFound(CheckpointError, FileNotFoundError):
    """A weight file does not exist, or the index names one that does not."""


class ShardNotReadable(CheckpointError, PermissionError):
    """The user may not read a file."""


class NotARegularFile(CheckpointError, OSError):
    """A path is a folder, a FIFO, a socket or a device where a file is needed."""


class ReadFailed(CheckpointError, OSError):
    """The operating system reported an error while opening or reading a file."""


class FileChanged(CheckpointError, OSError):
    """A file shrank or was replaced between opening it and reading it."""


class InvalidHeader(CheckpointError, ValueError):
    """A file is not well-formed safetensors; the message says which rule it breaks."""


class EmptyFile(InvalidHeader):
    """A file has no bytes at all, as an interrupted download leaves it."""


class GitLfsPointer(InvalidHeader):
    """A file is a git-lfs pointer: `git lfs pull` has not fetched the weights."""


class TruncatedFile(InvalidHeader):
    """A file is shorter than its header says."""


class InvalidPickle(CheckpointError, ValueError):
    """A `.bin` file that `torch.load(weights_only=True)` refuses, or that holds no state dict."""


class InvalidIndex(CheckpointError, ValueError):
    """An index file is not JSON, or has no `weight_map` of names to file names."""


class UnsafeShardName(InvalidIndex):
    """An index names a shard outside its folder (absolute, `..`, a drive, a backslash)."""


class IndexMismatch(CheckpointError, RuntimeError):
    """Index and shards disagree about which file holds which tensor."""


class ChecksumMismatch(CheckpointError, ValueError):
    """Asked to verify, `windlass.verify` found fault with a file; the message has the first."""


class TensorNotFound(CheckpointError, KeyError):
    """No tensor of that name is in the checkpoint."""


class UnsupportedDtype(CheckpointError, TypeError):
    """The framework has no dtype for a tensor of the file."""


class ModelError(WindlassError, RuntimeError):
    """The model cannot take the checkpoint; it has not been changed."""


class IncompatibleKeys(ModelError):
    """Names are missing or unexpected, or shapes differ.

    Attributes:
        missing_keys: names the model has and the checkpoint lacks, in model order.
        unexpected_keys: names the checkpoint has and the model lacks, in index order.
        mismatched_keys: `(name, checkpoint shape, model shape)`, in model order.
    """

    def __init__(
        self,
        message: str = "",
        missing_keys: list[str] | None = None,
        unexpected_keys: list[str] | None = None,
        mismatched_keys: list[tuple[str, tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message, missing_keys, unexpected_keys, mismatched_keys)
        self.missing_keys = missing_keys or []
        self.unexpected_keys = unexpected_keys or []
        self.mismatched_keys = mismatched_keys or []


class MetaParameter(ModelError):
    """A parameter is on the meta device and has no memory to fill."""


class UnsupportedParameter(ModelError):
    """A parameter that would be filled wrongly: a subclass, a DTensor, an expanded view."""


class SaveError(WindlassError):
    """A save did not happen, or did not end; the checkpoint there was before is whole.

    When the system fails after the new checkpoint has become visible, the new one is whole, and
    the next save or `windlass.recover` tidies up.
    """


class SaveFailed(SaveError, OSError):
    """The operating system reported an error while saving."""


class NoSpaceLeft(SaveFailed):
    """The new files do not fit beside the old ones, which stay until the new ones are whole."""


class SaveNotPermitted(SaveFailed, PermissionError):
    """The user may not write there."""


class SaveFolderNotFound(SaveFailed, FileNotFoundError):
    """The folder to save into does not exist, or a link leads nowhere."""


class FolderLocked(SaveError, TimeoutError):
    """Another save has held the folder for longer than `lock_timeout`."""


class UnsupportedTensor(SaveError, ValueError):
    """A value that cannot be saved: no tensor, no memory, or no dtype or layout of the format."""


class InvalidName(SaveError, ValueError):
    """A name of a tensor or in the metadata that no file may hold."""


class SharedTensors(SaveError, RuntimeError):
    """Names that share memory, where the caller asked for that to be an error."""


class NotEnoughMemory(WindlassError, MemoryError):
    """The system has no memory left for a tensor, a map of a file, or the work on one."""


class NoMemoryToSave(SaveError, NotEnoughMemory):
    """The system has no memory left for what a save needs beside the tensors."""


class SnapshotTooLarge(NoMemoryToSave):
    """The copy that `save_async` takes would need more memory than there is, or is allowed."""


class InvalidSlice(WindlassError, IndexError):
    """An index that is not of integers and slices, or leaves the tensor."""


class BudgetExceeded(WindlassError, MemoryError):
    """A stream needs more memory than its budget, or its user holds on to all of that."""


class DestinationError(WindlassError, ValueError):
    """Memory handed to the engine has the wrong size, place or layout."""
