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
    │   ├── FileChanged                  (OSError) replaced, changed or gone since it was opened
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
    │   ├── UnsupportedDtype             (TypeError) the framework has no such dtype
    │   ├── UnknownFormat                (OSError, ValueError) weights of another framework
    │   ├── ConfigNotFound               (FileNotFoundError) no such configuration file
    │   └── InvalidConfig                (ValueError) a configuration that means nothing
    │       ├── InvalidConfigFile        (OSError) not JSON, or not an object
    │       └── UnknownDtype             (AttributeError) no dtype of torch has that name
    ├── ModelError                       (RuntimeError) the model cannot take the checkpoint
    │   ├── IncompatibleKeys             names missing, unexpected or of another shape
    │   ├── MetaParameter                a parameter without memory
    │   ├── MixedNames                   (ValueError) names of a base model and of its head mixed
    │   └── UnsupportedParameter         subclass, layout or view that must not be filled
    ├── SaveError                        a save did not happen, or left something to tidy up
    │   ├── SaveFailed                   (OSError) the system refused a part of it
    │   │   ├── NoSpaceLeft              the new files do not fit beside the old ones
    │   │   ├── SaveNotPermitted         (PermissionError)
    │   │   ├── SaveFolderNotFound       (FileNotFoundError)
    │   │   └── TidyingFailed            the new checkpoint is in place, and not all tidied up
    │   ├── FolderLocked                 (TimeoutError) another save holds the folder
    │   ├── UnsupportedTensor            (ValueError) a value that no safetensors file can hold
    │   ├── InvalidName                  (ValueError) a name that no file may hold
    │   ├── SharedTensors                (RuntimeError) names that share memory
    │   └── NoMemoryToSave               (NotEnoughMemory) what a save needs beside the tensors
    │       └── SnapshotTooLarge         the copy for `save_async` does not fit
    ├── NotEnoughMemory                  (MemoryError) the system has none left for a tensor or file
    ├── NotSupported                     (NotImplementedError) an option that is not there yet
    ├── NoTensors                        (ValueError) a module or state dict without any
    ├── NoDevice                         (KeyError, ValueError) a device map leaves a tensor out
    ├── InvalidResize                    (ValueError, TypeError) a vocabulary that cannot be resized
    ├── HubError                         (OSError) the hub, the network or the cache refuse
    │   ├── RepositoryNotFound           no such repository, or a private one
    │   ├── RevisionNotFound             no such branch, tag or commit
    │   ├── FileNotInRepository          (FileNotFoundError) neither there nor in the folder
    │   ├── NotCached                    (FileNotFoundError) offline, and not in the cache
    │   ├── AccessDenied                 (PermissionError) a token is missing, wrong or too weak
    │   ├── HubUnavailable               (ConnectionError) no connection, or a hub that is down
    │   │   └── RateLimited              too many requests
    │   ├── CorruptDownload              what arrived is not what the hub had said
    │   └── InvalidRepositoryId          (ValueError) neither a folder nor an id
    ├── InvalidSlice                     (IndexError) an index that is none of the tensor
    ├── BudgetExceeded                   (MemoryError) a stream may not take the memory it needs
    └── DestinationError                 (ValueError) memory handed to the engine does not fit

The Rust core has an enum of the same cases; the binding maps one to the other.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "BudgetExceeded",
    "CheckpointError",
    "CheckpointNotFound",
    "ChecksumMismatch",
    "ConfigNotFound",
    "CorruptDownload",
    "DestinationError",
    "EmptyFile",
    "FileChanged",
    "FileNotInRepository",
    "FolderLocked",
    "GitLfsPointer",
    "HubError",
    "HubUnavailable",
    "IncompatibleKeys",
    "IndexMismatch",
    "InvalidConfig",
    "InvalidConfigFile",
    "InvalidHeader",
    "InvalidIndex",
    "InvalidName",
    "InvalidPickle",
    "InvalidRepositoryId",
    "InvalidResize",
    "InvalidSlice",
    "MetaParameter",
    "MixedNames",
    "ModelError",
    "NoDevice",
    "NoMemoryToSave",
    "NoSpaceLeft",
    "NoTensors",
    "NotARegularFile",
    "NotCached",
    "NotEnoughMemory",
    "NotSupported",
    "RateLimited",
    "ReadFailed",
    "RepositoryNotFound",
    "RevisionNotFound",
    "SaveError",
    "SaveFailed",
    "SaveFolderNotFound",
    "SaveNotPermitted",
    "ShardNotFound",
    "ShardNotReadable",
    "SharedTensors",
    "SnapshotTooLarge",
    "TensorNotFound",
    "TidyingFailed",
    "TruncatedFile",
    "UnknownDtype",
    "UnknownFormat",
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
    """A file was replaced or changed, or its time set, between opening it and reading it."""


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


class UnknownFormat(CheckpointError, OSError, ValueError):
    """The metadata of a safetensors file says that its weights are another framework's."""


class ConfigNotFound(CheckpointError, FileNotFoundError):
    """There is no configuration file, or it cannot be had from the hub."""


class InvalidConfig(CheckpointError, ValueError):
    """A field of a configuration has a value that means nothing, or that contradicts another."""


class InvalidConfigFile(InvalidConfig, OSError):
    """A configuration file is not JSON, or holds something else than one object."""


class UnknownDtype(InvalidConfig, AttributeError):
    """A name that is none of a dtype of torch."""


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


class MixedNames(ModelError, ValueError):
    """A checkpoint of a base model also has names of a head, which its own names would have to be.

    Loading it into a model with that head would leave open what belongs to which.
    """


class UnsupportedParameter(ModelError):
    """A parameter that would be filled wrongly: a subclass, a DTensor, an expanded view."""


class SaveError(WindlassError):
    """A save did not happen, and the checkpoint that was there before is whole.

    `TidyingFailed` alone says that the new checkpoint is in place.
    """


class SaveFailed(SaveError, OSError):
    """The operating system reported an error while saving."""


class NoSpaceLeft(SaveFailed):
    """The new files do not fit beside the old ones, which stay until the new ones are whole."""


class SaveNotPermitted(SaveFailed, PermissionError):
    """The user may not write there."""


class SaveFolderNotFound(SaveFailed, FileNotFoundError):
    """The folder to save into does not exist, or a link leads nowhere."""


class TidyingFailed(SaveFailed):
    """The new checkpoint is in place and whole; the system refused what was left to do after it.

    The next save into the folder, or `windlass.recover`, does the rest.
    """


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


class NotSupported(WindlassError, NotImplementedError):
    """An option that windlass knows and does not have yet; the message says what to do instead."""


class NoTensors(WindlassError, ValueError):
    """A module or a state dict holds no tensor to answer the question from."""


class NoDevice(WindlassError, KeyError, ValueError):
    """A device map has no device for a tensor, nor for any module that it is in."""


class InvalidResize(WindlassError, ValueError, TypeError):
    """A vocabulary that cannot be resized: not to that size, or not a module of that kind."""


class HubError(WindlassError, OSError):
    """The hub did not give or take what was asked; also for refusals of no class of their own."""


class RepositoryNotFound(HubError):
    """The hub has no such repository, or shows it only to those who may see it."""


class RevisionNotFound(HubError):
    """The repository has no such branch, tag or commit."""


class FileNotInRepository(HubError, FileNotFoundError):
    """The repository, or the folder, has no such file."""


class NotCached(HubError, FileNotFoundError):
    """The hub may or could not be reached, and the file is not in the cache."""


class AccessDenied(HubError, PermissionError):
    """The hub refuses: a gated repository, or a token that is missing, wrong or too weak."""


class HubUnavailable(HubError, ConnectionError):
    """There is no connection to the hub, or it does not work at the moment."""


class RateLimited(HubUnavailable):
    """The hub has had too many requests from here."""


class CorruptDownload(HubError):
    """A file arrived with another size or hash than the hub had said; it was thrown away."""


class InvalidRepositoryId(HubError, ValueError):
    """What was given is no folder, and cannot be the id of a repository."""


class InvalidSlice(WindlassError, IndexError):
    """An index that is not of integers and slices, or leaves the tensor."""


class BudgetExceeded(WindlassError, MemoryError):
    """A stream needs more memory than its budget, or its user holds on to all of that."""


class DestinationError(WindlassError, ValueError):
    """Memory handed to the engine has the wrong size, place or layout."""
