"""`save_async`: a snapshot now, the save in the background."""

from __future__ import annotations

import logging
import os
import threading
import traceback
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import torch

from windlass import _rust
from windlass.errors import NoMemoryToSave, SnapshotTooLarge
from windlass.memory import check_room, memory_for
from windlass.quiet import paused_gc
from windlass.refusals import saving_to
from windlass.sizes import parse_size
from windlass.torch.engine import cast_dtype, is_written
from windlass.torch.output import Placed, copy_cast
from windlass.torch.save_checkpoint import prepare
from windlass.torch.save_pickles import copy_to_host
from windlass.torch.tensors import destination

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from windlass.torch.save_checkpoint import Prepared
    from windlass.types import PathLike, Progress

logger = logging.getLogger(__name__)

#: Room for a thread to begin: its stack, and what Python needs first. Where that is missing a
#: thread can end before it says that it began, and `Thread.start` waits for ever.
_THREAD_BYTES = 16 << 20

#: Tensors of so many bytes at most are copied together, if they are of these dtypes.
_SMALL_BYTES = 64 << 10
_JOINED = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    }
)

#: The last save of each folder, so that saves of one folder end in the order they were begun.
_last: weakref.WeakValueDictionary[str, SaveHandle] = weakref.WeakValueDictionary()


class _State:
    """What became of a save."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.cancelled = False
        self.error: BaseException | None = None


class SaveHandle:
    """A save that goes on in a thread of its own.

    The interpreter waits for it before it exits. An error that nobody asks for is logged.
    """

    def __init__(self, prepared: Prepared | None, folder: str, before: SaveHandle | None) -> None:
        self._state = _State(folder)
        if prepared is not None:
            settings, state = prepared.settings, self._state
            settings = settings._replace(
                progress=_cancellable(settings.progress, state),
                poll=lambda _: _refuse_cancelled(state),
            )
            prepared = prepared._replace(settings=settings)
        self._thread = threading.Thread(
            target=_run, args=(self, prepared, before), name="windlass save"
        )
        self._complaint = weakref.finalize(self, _complain, self._state)
        with memory_for("the thread of a save", NoMemoryToSave):
            check_room(_THREAD_BYTES)
            self._thread.start()

    def done(self) -> bool:
        """Return whether the save has ended, well or not."""
        return not self._thread.is_alive()

    def cancel(self) -> bool:
        """Ask the save to stop; return whether it can still be asked.

        A cancelled save leaves the old checkpoint; `result` then raises `CancelledError`. One that
        is past its last byte goes on to its end.
        """
        self._state.cancelled = True
        return self._thread.is_alive()

    def result(self, timeout: float | None = None) -> None:
        """Wait for the save to end, and raise what it raised.

        Args:
            timeout: seconds to wait.

        Raises:
            TimeoutError: it has not ended.
            CancelledError: it was cancelled.
            SaveError: see `save_torch_state_dict`.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            message = f"the save to `{self._state.folder}` has not ended within {timeout} s"
            raise TimeoutError(message)
        self._complaint.detach()  # It would keep the error, and with it the frames of the caller.
        if self._state.error is not None:
            raise self._state.error


def save_async(
    state_dict: Mapping[str, torch.Tensor],
    save_directory: PathLike,
    *,
    is_main_process: bool = True,
    max_snapshot_bytes: int | str | None = None,
    **options: Any,  # noqa: ANN401  (those of save_torch_state_dict)
) -> SaveHandle:
    """Take a copy of a state dict, and save it in the background.

    When this returns, training may go on: the copy is complete. It takes as much host memory as
    the files will have bytes, until the save has ended; a pickle then says that all tensors were on
    the CPU. Saves into one folder end in the order in which they were begun.

    Args:
        state_dict: see `save_torch_state_dict`.
        save_directory: see `save_torch_state_dict`.
        is_main_process: `False` copies and writes nothing.
        max_snapshot_bytes: most memory for the copy, in bytes or as text such as `"40GB"`; by
            default what the system has to spare, or the container, if that is less.
        options: all others of `save_torch_state_dict`. `progress` is called from the background
            thread; there is no bar.

    Returns:
        A handle with `done()`, `result()` and `cancel()`.

    Raises:
        SnapshotTooLarge: the copy would need more memory; nothing was copied.
        UnsupportedTensor, InvalidName, SharedTensors, ValueError: see `save_torch_state_dict`.

    Example:
        >>> handle = save_async(model.state_dict(), folder / "background")
        >>> handle.result()
    """
    with saving_to(save_directory):
        prepared = prepare(state_dict, **options)
    folder = os.path.realpath(save_directory)
    if not is_main_process:
        return SaveHandle(None, folder, None)
    _check_room(_snapshot_bytes(prepared), max_snapshot_bytes)
    handle = SaveHandle(prepared._replace(contents=_copy(prepared)), folder, _last.get(folder))
    _last[folder] = handle
    return handle


def _run(handle: SaveHandle, prepared: Prepared | None, before: SaveHandle | None) -> None:
    """Save, after the save that was begun before; holds on to the handle until it is done."""
    error = handle._state.error = _attempt(handle._state, prepared, before)
    if error is not None:
        traceback.clear_frames(error.__traceback__)
    # The error holds on to this frame, which would hold on to the handle and the copied tensors.
    del handle, prepared, before


def _attempt(
    state: _State, prepared: Prepared | None, before: SaveHandle | None
) -> BaseException | None:
    try:
        if before is not None:
            before._thread.join()
        _refuse_cancelled(state)
        if prepared is not None:
            prepared.write(state.folder)
    except BaseException as error:  # noqa: BLE001  (handed to whoever asks for the result)
        return error
    return None


def _refuse_cancelled(state: _State) -> None:
    if state.cancelled:
        raise CancelledError


def _complain(state: _State) -> None:
    if state.error is not None and not isinstance(state.error, CancelledError):
        logger.error(
            "the save to `%s` failed, and nobody asked for its result",
            state.folder,
            exc_info=state.error,
        )


def _cancellable(progress: Progress, state: _State) -> Callable[[int, int], object]:
    def tell(done: int, total: int) -> None:
        if callable(progress):
            progress(done, total)
        _refuse_cancelled(state)

    return tell


def _snapshot_bytes(prepared: Prepared) -> int:
    if isinstance(prepared.contents, dict):
        return int(prepared.split.metadata["total_size"])
    return sum(one.nbytes for one in prepared.contents)


def _check_room(needed: int, allowed: int | str | None) -> None:
    spare = _rust.available_memory() if allowed is None else parse_size(allowed)
    if spare is not None and needed > spare:
        source = "max_snapshot_bytes" if allowed is not None else "memory to spare"
        message = f"the copy of the tensors needs {needed} bytes, {source} is {spare}"
        raise SnapshotTooLarge(message)


def _copy(prepared: Prepared) -> list[Placed] | dict[str, torch.Tensor]:
    if isinstance(prepared.contents, dict):
        return copy_to_host(prepared.contents)
    with paused_gc():
        return _copy_tensors(prepared.contents)


def _copy_tensors(placed: list[Placed]) -> list[Placed]:
    """Copy tensors as they will be in the file: packed, cast, in host memory."""
    copies: dict[int, torch.Tensor] = {}
    small: dict[torch.dtype, list[int]] = {}
    plain: list[int] = []
    for position, one in enumerate(placed):
        if not is_written(one.tensor, one.dtype) or cast_dtype(one.tensor, one.dtype) is not None:
            copies[position] = _new_tensor(one)
            _copy_elements(one, copies[position])
        elif one.dtype in _JOINED and 0 < one.nbytes <= _SMALL_BYTES:
            small.setdefault(one.dtype, []).append(position)
        else:
            copies[position] = _new_tensor(one)
            plain.append(position)
    _rust.copy_fresh(
        [destination(placed[position].tensor) for position in plain],
        [destination(copies[position]) for position in plain],
    )
    for positions in small.values():
        joined = _copy_small([placed[position].tensor for position in positions])
        copies.update(zip(positions, joined, strict=True))
    return [
        Placed(one.file, one.name, copies[position], one.dtype)
        for position, one in enumerate(placed)
    ]


def _copy_small(tensors: list[torch.Tensor]) -> Any:  # noqa: ANN401
    """Copy many tensors of one dtype into one piece of memory: the calls take longer than bytes."""
    with memory_for("the copy of small tensors", SnapshotTooLarge):
        flat = torch._C._nn.flatten_dense_tensors(tensors)
        memory = flat.clone() if len(tensors) == 1 else flat  # Of one it is that tensor's own.
    return torch._C._nn.unflatten_dense_tensors(memory, tensors)


def _new_tensor(one: Placed) -> torch.Tensor:
    with memory_for(f"tensor `{one.name}`", SnapshotTooLarge):
        return torch.empty(one.tensor.shape, dtype=one.dtype, device="cpu")


def _copy_elements(one: Placed, target: torch.Tensor) -> None:
    bits = one.as_bits()
    if bits is None:
        copy_cast(target, one.tensor)
    else:
        target.view(bits.dtype).copy_(bits)
