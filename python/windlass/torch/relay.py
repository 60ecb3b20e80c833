"""Bytes of safetensors to tensors of other devices: read and copied at the same time.

A ring of a few host buffers, pinned where the system allows it: the engine fills the next ones,
while lanes (see `lanes.py`) copy out of the others. A buffer is filled again only when its copies
are done. What a device casts from is what takes fewer bytes to move: elements of the file, or those
that the engine has cast already.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch

from windlass.torch.dtypes import HEADER_DTYPES
from windlass.torch.engine import casts
from windlass.torch.pieces import STAGING_BYTES, batches, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from windlass._rust import ReadStats
    from windlass.torch.lanes import Lane, Mark
    from windlass.torch.pieces import Piece

logger = logging.getLogger("windlass")

Read: TypeAlias = "Callable[[list[Piece], list[torch.Tensor], list[str | None], Tell], ReadStats]"
Tell: TypeAlias = "Callable[[int], object]"

#: Buffers in the ring: two are read into, two are copied from.
BUFFERS = 4

_READS_AT_ONCE = 2


class Relay:
    """Carries pieces of tensors to their devices.

    Args:
        read: `(pieces, values, dtypes, tell)` has the engine fill `values`, on any thread; `dtypes`
            says which are cast, and to what. What `tell` raises ends it.
        new_lane: makes a lane to a device.
    """

    def __init__(self, read: Read, new_lane: Callable[[torch.device], Lane]) -> None:
        self._read = read
        self._new_lane = new_lane
        self._lanes: dict[torch.device, Lane] = {}
        self._buffers: list[torch.Tensor] = []
        self._marks: list[list[Mark]] = [[] for _ in range(BUFFERS)]
        self._reading: deque[tuple[int, list[Piece], list[torch.Tensor], Future[ReadStats]]] = (
            deque()
        )
        self._closing = threading.Event()

    def carry(
        self, pieces: Iterable[Piece], arrived: Callable[[list[Piece], ReadStats], object]
    ) -> None:
        """Carry all of them; `arrived` is told what was read, and how.

        When it returns, every copy is done.
        """
        threads = ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="windlass relay")
        try:
            for number, batch in enumerate(batches(pieces)):
                if len(self._reading) == _READS_AT_ONCE:
                    self._send_next(arrived)
                self._begin(number % BUFFERS, batch, threads)
            while self._reading:
                self._send_next(arrived)
        finally:
            self._close(threads)

    def _begin(self, slot: int, batch: list[Piece], threads: ThreadPoolExecutor) -> None:
        """Read a batch into a buffer, once what was copied out of it has arrived."""
        self._wait_for(slot)
        if slot == len(self._buffers):
            self._buffers.append(_new_buffer())
        dtypes = list(map(_dtype_to_move, batch))
        values = list(place(batch, self._buffers[slot], dtypes))
        names = [
            None if dtype == piece.dtype else HEADER_DTYPES[dtype]
            for piece, dtype in zip(batch, dtypes, strict=True)
        ]
        future = threads.submit(self._read, batch, values, names, self._refuse_closing)
        self._reading.append((slot, batch, values, future))

    def _send_next(self, arrived: Callable[[list[Piece], ReadStats], object]) -> None:
        """Hand what was read first to the lanes."""
        slot, batch, values, future = self._reading.popleft()
        stats = future.result()
        used: dict[torch.device, Lane] = {}
        for piece, value in zip(batch, values, strict=True):
            device = piece.target.device
            lane = used[device] = self._lane(device)
            lane.send(piece.target, value)
        self._marks[slot] = [lane.mark() for lane in used.values()]
        arrived(batch, stats)

    def _lane(self, device: torch.device) -> Lane:
        if device not in self._lanes:
            self._lanes[device] = self._new_lane(device)
        return self._lanes[device]

    def _wait_for(self, slot: int) -> None:
        for mark in self._marks[slot]:
            mark.synchronize()
        self._marks[slot] = []

    def _close(self, threads: ThreadPoolExecutor) -> None:
        """Stop what is being read, and wait for what is being copied: the buffers go now."""
        self._closing.set()
        threads.shutdown(cancel_futures=True)
        self._reading.clear()
        for lane in self._lanes.values():
            lane.close()
        for slot in range(BUFFERS):
            self._wait_for(slot)

    def _refuse_closing(self, _: int) -> None:
        if self._closing.is_set():
            raise CancelledError


def _dtype_to_move(piece: Piece) -> torch.dtype:
    """Return the smaller dtype, that in the file or that on the device, if there is a choice."""
    wanted = piece.target.dtype
    is_smaller = wanted.itemsize < piece.dtype.itemsize
    return wanted if is_smaller and casts(piece.dtype, wanted) else piece.dtype


def _new_buffer() -> torch.Tensor:
    """Return a buffer, pinned if the system allows it: then a copy leaves the host free."""
    new = partial(torch.empty, STAGING_BYTES, dtype=torch.uint8, device="cpu")
    if torch.cuda.is_available():
        try:
            return new(pin_memory=True)
        except RuntimeError as error:
            logger.debug("%d bytes could not be pinned: %s", STAGING_BYTES, error)
    return new()
