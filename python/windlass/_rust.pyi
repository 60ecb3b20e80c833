"""The engine: opened checkpoints, and bytes read straight into memory of the caller.

Everything here raises classes of `windlass.errors`. Work that touches a disk releases the GIL;
work that can take long answers Ctrl-C within 100 ms and calls `progress(bytes_so_far)` about
every 20 ms, from the calling thread.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import PurePath
from typing import Literal, Self, TypeAlias, TypedDict, final, type_check_only

from typing_extensions import Buffer, CapsuleType

__all__ = [
    "DTYPES",
    "IN_PLACE",
    "BlockReader",
    "Checkpoint",
    "Mapping",
    "PausedGc",
    "Prefetch",
    "Save",
    "Ways",
    "__version__",
    "available_memory",
    "can_cast",
    "copy_fresh",
    "encode_header",
    "find_aliases",
    "find_touching",
    "memory_within_limits",
    "parse_header",
    "plan_shards",
    "prefetch",
    "read_index",
    "recover",
    "resolve_overlaps",
]

__version__: str

_NewTensor: TypeAlias = tuple[str, str, Sequence[int]]
_NewFile: TypeAlias = tuple[str, Sequence[_NewTensor] | int, dict[str, str] | None, bool]

#: Every dtype of the format, by header name: bits per element.
DTYPES: dict[str, int]
#: Note of an exception that came after the new checkpoint was in place.
IN_PLACE: str

@type_check_only
class ReadStats(TypedDict):
    """What a read did: how much, by how many reads and threads.

    `ways` has a row for each shard that was read: its position, `"mapped"`, `"buffered"` or
    `"direct"`, or by io_uring `"uring"` and, past the page cache, `"uring-direct"`; why, and how
    many bytes. `backend` is the same for all of them, or `"several"`.
    """

    bytes: int
    reads: int
    threads: int
    backend: str
    ways: list[tuple[int, str, str, int]]

@final
class Mapping:
    """A shard file in memory: private, writable, zero-copy; exports the buffer protocol.

    Writing to it changes memory and never the file. It lives as long as anything looks into it.
    """

    @staticmethod
    def anonymous(nbytes: int) -> Mapping:
        """Return memory of no file, all zero, which the system has back when it is gone."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Prefetch:
    """Threads that make maps present. They hold no map alive, and end with the process."""

    def stop(self) -> None:
        """End it soon: after the window that each thread is at."""

    def wait(self) -> None:
        """Wait until all is present that will be."""

    def nbytes(self) -> int:
        """Return how many bytes were made present so far."""

@final
class Checkpoint:
    """An opened checkpoint: all headers read and checked, no tensor touched, no file held open.

    Tensors stand in index order, or for a single file in the order of their bytes.
    """

    @staticmethod
    def open_file(path: str | PathLike[str], strict_format: bool) -> Checkpoint:
        """Open a single safetensors file."""

    @staticmethod
    def open_index(path: str | PathLike[str], strict_format: bool) -> Checkpoint:
        """Open an index and all its shards; index and headers must agree."""

    def __len__(self) -> int: ...
    def __contains__(self, name: str, /) -> bool: ...
    def path(self) -> PurePath:
        """Return the file or index that was opened."""

    def names(self) -> list[str]:
        """Return all names, in order."""

    def info(self, name: str) -> tuple[str, tuple[int, ...], int, int, int]:
        """Return dtype, shape, position of the shard, start and end within its file."""

    def infos(self) -> list[tuple[str, tuple[int, ...], int, int, int]]:
        """Return `info` of every tensor, in the order of `names`."""

    def shard_names(self) -> list[str]:
        """Return the files, in the order of their first mention."""

    def shard_metadata(self, shard: int) -> dict[str, str] | None:
        """Return the `__metadata__` of a shard, in file order."""

    def index_metadata(self) -> str | None:
        """Return the JSON text of the index's `metadata`."""

    def unlisted(self) -> list[tuple[str, str]]:
        """Return `(tensor, shard)` for tensors that no index entry names."""

    def plan(self) -> tuple[int, int]:
        """Plan reading every tensor; return the number of reads and of bytes."""

    def crc32c(self, *, threads: int, progress: Callable[[int], object] | None = None) -> list[int]:
        """Read every tensor; return the CRC-32C of each, in the order of `names`."""

    def map_shard(self, shard: int) -> Mapping:
        """Map a shard, after checking that it is still the file whose header was read."""

    def file_system(self, shard: int) -> tuple[str, bool]:
        """Return what kind of file system a shard is on, and whether what is mapped stays there.

        It does not where another machine or process gives the pages: touching one that they do not
        give ends the process. Whoever is unknown is not trusted.
        """

    def read_cuts(
        self,
        names: Sequence[str],
        shapes: Sequence[Sequence[int]],
        cuts: Sequence[Sequence[tuple[int, int, int]]],
        destinations: Sequence[Buffer | CapsuleType],
        *,
        threads: int,
        io: str,
        cache: str = "keep",
        fresh: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> ReadStats:
        """Fill destinations with parts of tensors, packed.

        Args:
            names: one tensor for each destination.
            shapes: the dimensions that its cuts count in.
            cuts: for each dimension `(first, count, step)`.
            destinations: see `read_into`.
            threads: see `read_into`.
            io: see `read_into`.
            cache: see `read_into`.
            fresh: see `read_into`.
            progress: see `read_into`.

        """

    def look(self, names: Sequence[str], *, io: str, cache: str = "keep") -> Ways:
        """Choose how tensors are read that `read_into` reads in several calls."""

    def block_reader(
        self,
        names: Sequence[str],
        *,
        most_bytes: int,
        threads: int,
        io: str,
        cache: str = "keep",
    ) -> BlockReader:
        """Start threads that read tensors, block by block.

        Args:
            names: all tensors that will be read; they are judged together.
            most_bytes: of memory for blocks that are being read.
            threads: see `read_into`.
            io: see `read_into`.
            cache: see `read_into`.

        """

    def read_into(
        self,
        names: Sequence[str],
        destinations: Sequence[Buffer | CapsuleType],
        starts: Sequence[int] | None = None,
        dtypes: Sequence[str | None] | None = None,
        *,
        threads: int,
        io: str,
        cache: str = "keep",
        fresh: bool = False,
        ways: Ways | None = None,
        progress: Callable[[int], object] | None = None,
        on_failure: Callable[[list[tuple[int, bool]]], object] | None = None,
    ) -> ReadStats:
        """Fill destinations with the bytes of tensors, or with their elements.

        Args:
            names: one tensor for each destination.
            destinations: writable host memory: an object with the buffer protocol, or a DLPack
                capsule. It is C-contiguous, unless its dtype is named.
            starts: first byte wanted of each tensor; the destination's size says how many. Without
                it every destination takes the whole tensor and must have its size.
            dtypes: for each destination the dtype that elements are cast to, or `None` for bytes as
                they are. No two elements of a destination may be one, and none may reach over
                memory of another destination.
            threads: reader threads; 0 leaves the number to the engine.
            io: `"auto"`, `"mapped"`, `"buffered"`, `"direct"` or `"uring"`.
            cache: `"keep"`, or `"drop"` to take out of the page cache what was not in it before.
            fresh: the destinations were never touched: they may come in huge pages.
            ways: what `look` has chosen, instead of `io`.
            progress: called with the number of bytes delivered so far.
            on_failure: called before an error of the read is raised, with `(position, whole)` for
                each destination that may have been written to; it is `whole` if it has all that it
                was to get.

        """

@final
class Ways:
    """How the shards of a load of several reads are read."""

@final
class BlockReader:
    """Threads that read blocks of tensors in the order in which they are begun."""

    def begin(self, names: Sequence[str], starts: Sequence[int], nbytes: int) -> None:
        """Have tensors read into new memory, in which they begin at these places, ascending."""

    def take(self) -> Mapping:
        """Wait for the block that was begun first of those not taken yet; return its memory.

        There must be one. Errors are those of its reads.
        """

    def close(self) -> ReadStats:
        """Stop what is being read, and say what was."""

@final
class PausedGc:
    """A pause of the garbage collector, unless somebody else has paused it."""

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

def memory_within_limits() -> int | None:
    """Return the bytes that the limits of the control groups leave, free swap counted in.

    None without a limit.
    """

def available_memory() -> int | None:
    """Return the bytes that this process may still use: the machine's, or its cgroup's if less.

    Page cache counts as free. None where the system does not say.
    """

def copy_fresh(
    sources: Sequence[Buffer | CapsuleType], destinations: Sequence[Buffer | CapsuleType]
) -> None:
    """Copy C-contiguous memory to memory of the same size that was never touched, on all cores."""

def prefetch(
    parts: Sequence[tuple[Mapping, int, int]], budget: int, report: Callable[[str], object]
) -> Prefetch:
    """Make parts of maps present in the background, each given as `(map, start, end)`.

    Goes on in their order until so many bytes are present. What cannot be is left as it was, and
    said to `report`, from another thread.
    """

def can_cast(found: str, wanted: str) -> bool:
    """Return whether the engine casts one dtype of the header to another."""

def plan_shards(
    items: Sequence[tuple[int, int | None]],
    max_size: int,
    rule: str,
) -> tuple[list[list[int]], int]:
    """Distribute tensors over shards; return the positions in each, and the sum of the sizes.

    Args:
        items: size and number of the storage of each tensor. Those of one storage stay together,
            and the size of the first counts; a tensor without a number shares with none.
        max_size: largest shard, in the unit of the sizes; what is larger has a shard to itself.
        rule: `"hub"` or `"shard_checkpoint"`.

    """

def read_index(path: str | PathLike[str]) -> tuple[dict[str, str], list[str]]:
    """Return weight map and shard names of an index, without opening a shard."""

def find_touching(
    spaces: Sequence[int], starts: Sequence[int], ends: Sequence[int]
) -> list[list[int]]:
    """Group address ranges that share an address, directly or by way of others.

    Addresses of different `spaces` (devices) have nothing in common; an empty range is in no group.
    Returns positions in ascending order, groups of two and more in the order of their first.
    """

def find_aliases(
    tensors: Sequence[tuple[int, int, Sequence[int], Sequence[int], int, int]],
) -> list[
    tuple[
        list[int],
        Literal["identical", "same_bytes", "nested", "overlapping"],
    ]
]:
    """Group tensors that share at least one byte of elements, directly or by way of others.

    Each tensor is `(space, address, shape, strides in elements, bytes per element, kind)`: `kind`
    is a number for how bytes become values. Returns positions in ascending order and their
    relation, in the order of their first.
    """

def resolve_overlaps(
    views: Sequence[tuple[int, Sequence[int], Sequence[int], int, bool]],
) -> list[
    tuple[
        Literal["kept", "partly overwritten", "overwritten", "covered", "missing"],
        int | None,
    ]
]:
    """Judge views of shared memory, given in model order.

    Each view is `(address, shape, strides in elements, bytes per element, present in the
    checkpoint)`. A present view is kept, or (partly) overwritten by the later view of that
    position; an absent one is covered by present views, or missing.
    """

@final
class Save:
    """A file or a checkpoint that is being written; nobody can see it before `commit`.

    Files are given as `(file name, tensors, metadata, checksums)`: tensors as `(name, dtype,
    shape)`, or `None` when the caller writes the file at `staged_path` itself. Dropping a save, or
    leaving its context, removes what was staged.
    """

    @staticmethod
    def file(path: str | PathLike[str], file: _NewFile, *, durable: bool) -> Save:
        """Begin to replace one file."""

    @staticmethod
    def folder(
        folder: str | PathLike[str],
        family: tuple[str, str, str, str | None],
        files: Sequence[_NewFile],
        *,
        durable: bool,
        lock_timeout: float,
        poll: Callable[[int], object] | None = None,
    ) -> Save:
        """Begin to replace the checkpoint of a family: `(prefix, suffix, name of the index)`.

        Waits for another save in the folder, `lock_timeout` seconds at most; meanwhile `poll` is
        called, and what it raises ends the wait.
        """

    def staged_path(self, file: int) -> str:
        """Return where a file is while it is staged."""

    def work_name(self) -> str | None:
        """Return the name of the folder that staged files are in; `None` for a single file."""

    def write(
        self,
        files: Sequence[int],
        names: Sequence[str],
        sources: Sequence[Buffer | CapsuleType],
        starts: Sequence[int] | None = None,
        dtypes: Sequence[str | None] | None = None,
        *,
        threads: int,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Write tensors, or parts of them from byte `starts[i]` on, from host memory.

        `files[i]` is the position of the file that tensor `names[i]` is in. `dtypes[i]` is the
        dtype that elements have in memory, which may then be strided, or `None` for contiguous
        bytes as they are. 0 threads leaves the number to the engine.
        """

    def commit(self, interim: bytes, last: bytes) -> None:
        """Make the new files visible, all at once.

        The index is given twice: with files named `{work_name}/{name}`, and as they stay.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None:
        """Remove what was staged, unless it was committed."""

def encode_header(
    tensors: Sequence[_NewTensor], metadata: dict[str, str] | None
) -> tuple[bytes, list[str]]:
    """Return a file's header, and its tensors' names in the order of their bytes."""

def parse_header(data: bytes) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Check a whole file in memory: `(name, dtype, shape, start, end)`, in the order of bytes."""

def recover(folder: str | PathLike[str], lock_timeout: float) -> list[tuple[str, str]]:
    """Deal with what interrupted saves left: `(name, "undone" | "completed" | "superseded")`."""
