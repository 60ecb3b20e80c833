"""Tensor after tensor of a checkpoint of any size, in memory that never exceeds a budget."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from windlass.errors import BudgetExceeded
from windlass.memory import memory_for
from windlass.reports import log_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from windlass import _rust
    from windlass.arrays import Adapter, ReadSettings
    from windlass.tensor_info import TensorInfo

Array = TypeVar("Array")

#: Largest block of several tensors, in bytes; no more than this share of the budget.
_MOST_BLOCK_BYTES = 64 << 20
_BLOCKS_IN_BUDGET = 8

#: What is read ahead at a time, in bytes: more keeps no more threads busy, and memory that the loop
#: lets go of is had again for what comes next.
_AHEAD_BYTES = 512 << 20

#: Tensors begin at multiples of this within a block, in bytes: what torch gives its own.
_ALIGNMENT = 64

#: How long to wait, in seconds, for somebody to let go of tensors when they take all of the budget.
_PATIENCE = 5.0


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
    block_bytes = min(_MOST_BLOCK_BYTES, budget // _BLOCKS_IN_BUDGET)
    blocks = _even(plan_blocks(infos, block_bytes), block_bytes)
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


def _even(blocks: list[Block], block_bytes: int) -> list[Block]:
    """Give blocks of about one size memory of one size, so that one can have that of another.

    Blocks that are less than half full stay as small as they are: who keeps such a tensor takes no
    more of the budget.
    """
    most = max((block.nbytes for block in blocks), default=0)
    even = min(block_bytes, most)
    return [
        block._replace(nbytes=even) if even // 2 <= block.nbytes < even else block
        for block in blocks
    ]


class _Room:
    """What is left of the budget."""

    def __init__(self, budget: int) -> None:
        self.budget = self._left = budget
        # Collecting garbage may give back while taking: the lock of a condition is an RLock.
        self._changed = threading.Condition()

    def take(self, nbytes: int, patience: float = 0.0) -> bool:
        """Take so much of it; wait so many seconds until others have given back enough."""
        with self._changed:
            fits = self._changed.wait_for(lambda: nbytes <= self._left, patience)
            self._left -= nbytes if fits else 0
            return fits

    def give_back(self, nbytes: int) -> None:
        with self._changed:
            self._left += nbytes
            self._changed.notify_all()


class _Reads:
    """Blocks that are being read, and those that wait to be."""

    def __init__(self, table: _rust.Checkpoint, reader: _rust.BlockReader, room: _Room) -> None:
        self._table, self._reader, self._room = table, reader, room
        self._begun: deque[Block] = deque()

    def __len__(self) -> int:
        return len(self._begun)

    @property
    def nbytes(self) -> int:
        """Memory of all that was begun."""
        return sum(block.nbytes for block in self._begun)

    def begin(self, block: Block) -> None:
        """Read a block, for which room has been taken."""
        starts = [place.file_range[0] for place in block.places.values()]
        with memory_for(f"tensor `{next(iter(block.places))}`"):
            self._reader.begin(list(block.places), starts, block.nbytes)
        self._begun.append(block)

    def next(self) -> tuple[Block, _rust.Mapping]:
        """Return the block that was begun first, when it has been read."""
        block = self._begun.popleft()
        memory = self._reader.take()
        weakref.finalize(memory, self._room.give_back, block.nbytes).atexit = False
        return block, memory

    def close(self) -> None:
        """Stop what is being read."""
        log_read(self._table, self._reader.close())


def _deliver(
    table: _rust.Checkpoint,
    blocks: deque[Block],
    adapter: Adapter[Array],
    room: _Room,
    settings: ReadSettings,
) -> Iterator[tuple[str, Array]]:
    names = [name for block in blocks for name in block.places]
    reader = table.block_reader(names, most_bytes=room.budget, **settings)
    reads = _Reads(table, reader, room)
    try:
        while blocks or reads:
            while blocks and reads.nbytes < _AHEAD_BYTES and room.take(blocks[0].nbytes):
                reads.begin(blocks.popleft())
            if not reads:
                _wait_for_room(blocks[0], room)
                reads.begin(blocks.popleft())
            block, memory = reads.next()
            for name, place in block.places.items():
                yield name, adapter.view(name, place, memory)
            del memory
    finally:
        reads.close()


def _wait_for_room(block: Block, room: _Room) -> None:
    gc.collect()  # Tensors may be part of cycles.
    if not room.take(block.nbytes, _PATIENCE):
        raise BudgetExceeded(_held(block, room.budget))


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
