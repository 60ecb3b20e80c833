"""State dict of any framework → which tensor goes into which file. Names only, nothing is written.

A framework says what a tensor's storage is and how large; the engine plans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from windlass._rust import plan_shards
from windlass.layout import name_shards
from windlass.quiet import paused_gc
from windlass.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from windlass.types import ShardRule

MAX_SHARD_SIZE = "5GB"

#: Where the engine's numbers end; a limit above it is none.
_UNLIMITED = 2**64 - 1

TensorT = TypeVar("TensorT")


@dataclass
class StateDictSplit:
    """Which tensor goes into which file: as the hub's class of this name.

    Attributes:
        is_sharded: whether there is more than one file.
        metadata: what goes into the index: `{"total_size": bytes}`, each storage counted once.
        filename_to_tensors: names in each file, files in order.
        tensor_to_filename: the file of each name: the index's weight map.

    Example:
        >>> StateDictSplit({"total_size": 4}, {"a": ["w"]}, {"w": "a"}).is_sharded
        False
    """

    is_sharded: bool = field(init=False)
    metadata: dict[str, Any]
    filename_to_tensors: dict[str, list[str]]
    tensor_to_filename: dict[str, str]

    def __post_init__(self) -> None:
        self.is_sharded = len(self.filename_to_tensors) > 1


class Measured(NamedTuple):
    """The tensors of a state dict, as the engine needs to know them.

    Attributes:
        names: in order.
        items: of each, the size and the number of the storage, None if it shares with none.
    """

    names: list[str]
    items: list[tuple[int, int | None]]


def split_state_dict_into_shards_factory(
    state_dict: Mapping[str, TensorT],
    *,
    get_storage_size: Callable[[TensorT], int],
    filename_pattern: str,
    get_storage_id: Callable[[TensorT], Hashable | None] = lambda _: None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    rule: ShardRule = "hub",
) -> StateDictSplit:
    """Distribute the tensors of any framework over files, as the hub's function of this name.

    Tensors are taken in order and put into one file until the next would make it too large.
    Those that share a storage are together, and it counts once. Texts, which bitsandbytes puts
    among the tensors, are left out.

    Args:
        state_dict: tensors by name.
        get_storage_size: bytes of a tensor.
        filename_pattern: file name with `{suffix}` where the number of the shard goes.
        get_storage_id: what is equal for tensors that share a storage; None for those that share
            with none.
        max_shard_size: largest file, see `windlass.sizes.parse_size`. A tensor that is larger has
            a file to itself.
        rule: `"hub"`: a tensor that is larger leaves the file open that is being filled;
            `"shard_checkpoint"`: it closes it, so that files follow the order of the tensors.

    Raises:
        ValueError: a size that is none, a pattern without `{suffix}`, or an unknown rule.
        TypeError: `max_shard_size` is neither an int nor a text, or a tensor's size is no int.

    Example:
        >>> split_state_dict_into_shards_factory(
        ...     {"a": b"1234", "b": b"12345678", "c": b"12"},
        ...     get_storage_size=len,
        ...     filename_pattern="weights{suffix}.bin",
        ...     max_shard_size=6,
        ... ).filename_to_tensors
        {'weights-00001-of-00002.bin': ['b'], 'weights-00002-of-00002.bin': ['a', 'c']}
    """
    name_shards(filename_pattern, 1)  # Refused before anything is measured.
    with paused_gc():
        measured = measure(state_dict, lambda t: (get_storage_id(t), get_storage_size(t)))
        return split_measured(measured, filename_pattern, max_shard_size, rule)


def measure(
    state_dict: Mapping[str, TensorT],
    storage_of: Callable[[TensorT], tuple[Hashable | None, int]],
) -> Measured:
    """Ask for id and size of each tensor's storage; texts are left out."""
    names: list[str] = []
    items: list[tuple[int, int | None]] = []
    numbers: dict[Hashable, int] = {}
    for name, tensor in state_dict.items():
        if isinstance(tensor, str):
            continue
        try:
            storage, size = storage_of(tensor)
            _check_size(size)
            number = None if storage is None else numbers.setdefault(storage, len(numbers))
        except Exception as error:
            error.add_note(f"while measuring `{name}` of the state dict")
            raise
        names.append(name)
        items.append((size, number))
    return Measured(names, items)


def _check_size(size: int) -> None:
    if not 0 <= size <= _UNLIMITED:
        message = f"the size of a tensor should be 0 to 2**64 - 1, found {size!r}"
        raise ValueError(message)


def split_measured(
    measured: Measured, filename_pattern: str, max_shard_size: int | str, rule: ShardRule
) -> StateDictSplit:
    """Distribute tensors over files, and name those."""
    shards, total = plan_names(measured, parse_size(max_shard_size), rule)
    files = dict(zip(name_shards(filename_pattern, len(shards)), shards, strict=True))
    tensor_to_filename = {name: file for file, names in files.items() for name in names}
    return StateDictSplit({"total_size": total}, files, tensor_to_filename)


def plan_names(measured: Measured, max_size: int, rule: ShardRule) -> tuple[list[list[str]], int]:
    """Return the names in each shard, and the sum of the sizes."""
    shards, total = plan_shards(measured.items, min(max_size, _UNLIMITED), rule)
    names = measured.names
    return [[names[position] for position in shard] for shard in shards], total
