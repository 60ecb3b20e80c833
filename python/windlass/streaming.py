"""Tensor after tensor of a checkpoint of any size, in memory that never exceeds a budget."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from windlass import _rust
from windlass.errors import BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from windlass.arrays import Adapter, ReadSettings
    from windlass.tensor_info import TensorInfo

Array = TypeVar("Array")

#: Largest block of several tensors, in bytes; no more than this share of the budget.
_MOST_BLOCK_BYTES = 64 << 20
_BLOCKS_IN_BUDGET = 8

#: Tensors begin at multiples of this within a block, in bytes: what torch gives its own.
_ALIGNMENT = 64

#: Blocks that are read at once: while one ends, the next has begun.
_READS_AT_ONCE = 2


class Block(NamedTuple):
    """Tensors that are read together, side by side in memory of their own.

    Attributes:
        places: tensors by name; their range is that within the block.
        nbytes: size of the memory.
    """

    places: dict[str, TensorInfo]
    nbytes: int


def stream(
    table: _rust.Checkpoint,
    infos: Mapping[str, TensorInfo],
    adapter: Adapter[Array],
    budget: int,
    settings: ReadSettings,
) -> Iterator[tuple[str, Array]]:
    """Read tensors in the order of `infos`, and yield each with its name.

    The budget covers what is being read, what waits to be yielded, and what was yielded as long as
    anybody looks into it.

    Raises:
        BudgetExceeded: at once, if a tensor is larger than the budget.
    """
    blocks = plan_blocks(infos, min(_MOST_BLOCK_BYTES, budget // _BLOCKS_IN_BUDGET))
    for block in blocks:
        _check_fits(block, budget)
    return _deliver(table, deque(blocks), adapter, _Room(budget), settings)


def plan_blocks(infos: Mapping[str, TensorInfo], block_bytes: int) -> list[Block]:
    """Deal tensors out to blocks of at most that size; a larger tensor has one to itself."""
    blocks: list[Block] = []
    end = block_bytes + 1  # No block is open.
    for name, info in infos.items():
        if end + info.nbytes > block_bytes:
            blocks.append(Block({}, 0))
            end = 0
        place = info._replace(file_range=(end, end + info.nbytes))
        blocks[-1].places[name] = place
        blocks[-1] = blocks[-1]._replace(nbytes=end + info.nbytes)
        end = -(-place.file_range[1] // _ALIGNMENT) * _ALIGNMENT
    return blocks


class _Room:
    """What is left of the budget."""

    def __init__(self, budget: int) -> None:
        self.budget = self._left = budget
        self._lock = threading.RLock()  # Collecting garbage may give back while taking.

    def take(self, nbytes: int) -> bool:
        """Take so much of it, if there is so much."""
        with self._lock:
            fits = nbytes <= self._left
            self._left -= nbytes if fits else 0
            return fits

    def give_back(self, nbytes: int) -> None:
        with self._lock:
            self._left += nbytes


def _deliver(
    table: _rust.Checkpoint,
    blocks: deque[Block],
    adapter: Adapter[Array],
    room: _Room,
    settings: ReadSettings,
) -> Iterator[tuple[str, Array]]:
    reading: deque[tuple[Block, Future[_rust.Mapping]]] = deque()
    readers = ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="windlass stream")
    try:
        while blocks or reading:
            while blocks and room.take(blocks[0].nbytes):
                block = blocks.popleft()
                memory = _new_memory(block.nbytes, room)
                reading.append((block, readers.submit(_read, table, block, memory, settings)))
                del memory
            if not reading:
                raise BudgetExceeded(_held(blocks[0], room.budget))
            block, future = reading.popleft()
            memory = future.result()
            del future  # It would hold on to the memory.
            for name, place in block.places.items():
                yield name, adapter.view(name, place, memory)
            del memory
    finally:
        readers.shutdown(cancel_futures=True)


def _new_memory(nbytes: int, room: _Room) -> _rust.Mapping:
    memory = _rust.Mapping.anonymous(nbytes)
    weakref.finalize(memory, room.give_back, nbytes).atexit = False
    return memory


def _read(
    table: _rust.Checkpoint, block: Block, memory: _rust.Mapping, settings: ReadSettings
) -> _rust.Mapping:
    whole = memoryview(memory)
    destinations = [whole[slice(*place.file_range)] for place in block.places.values()]
    table.read_into(list(block.places), destinations, **settings)
    return memory


def _check_fits(block: Block, budget: int) -> None:
    if block.nbytes > budget:
        name = next(iter(block.places))
        message = f"tensor `{name}` has {block.nbytes} bytes, the budget is {budget}"
        raise BudgetExceeded(message)


def _held(block: Block, budget: int) -> str:
    name = next(iter(block.places))
    return (
        f"no room for {block.nbytes} bytes of tensor `{name}` and those beside it: the budget of "
        f"{budget} bytes is taken by tensors that the stream has given and that are still in use; "
        "the variable of the loop is one of them until it is deleted"
    )
