"""A process that saves checkpoints and is killed at it: the program, and how tests talk to it.

The program imports torch once, keeps no thread, and forks a child for each save that is to be
killed. It is told what to do by lines of JSON, and answers each with one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch


class Checkpoint(NamedTuple):
    """What is saved: tensor number n of the model is full of `sign * n`, counted from 1."""

    sign: int
    max_shard_size: str
    safetensors: bool = True


class Saver:
    """The program, from outside."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "builders.saver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._tell(shapes)

    def save(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Save, in peace."""
        self._ask(do="save", folder=str(folder), checkpoint=checkpoint)

    def time_save(self, folder: Path, checkpoint: Checkpoint) -> float:
        """Save in children that are not killed; return the seconds that a save took, mostly.

        Not their end, which takes as long again, nor the first of them, which takes longer.
        """
        seconds = []
        for _ in range(7):
            answer = self._ask(do="fork", folder=str(folder), checkpoint=checkpoint, delay=None)
            assert answer["status"] == 0
            seconds.append(float(answer["seconds"]))
        return statistics.median(seconds[1:])

    def kill_save(self, folder: Path, checkpoint: Checkpoint, delay: float) -> bool:
        """Kill a save some seconds after its begin; return whether it was not over by then."""
        answer = self._ask(do="fork", folder=str(folder), checkpoint=checkpoint, delay=delay)
        return bool(answer["status"] == signal.SIGKILL)

    def copy_states(self, folder: Path, checkpoint: Checkpoint, copies: Path) -> list[Path]:
        """Save, and copy each state that the folder is in meanwhile: what a kill would leave."""
        answer = self._ask(
            do="copy states", folder=str(folder), checkpoint=checkpoint, copies=str(copies)
        )
        return [copies / name for name in answer["names"]]

    @contextlib.contextmanager
    def saving_in_turn(self, folder: Path, *checkpoints: Checkpoint) -> Iterator[None]:
        """Save one checkpoint after the other, over and over; rest as long as each took."""
        self._ask(do="save in turn", folder=str(folder), checkpoints=checkpoints)
        try:
            yield
        finally:
            self._ask(do="stop")

    def close(self) -> None:
        """End the program."""
        with self._process:
            pass

    def _ask(self, **words: Any) -> dict[str, Any]:
        self._tell(words)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the saver has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _tell(self, words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()


def values(shapes: Mapping[str, tuple[int, ...]], sign: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a `Checkpoint`."""
    import torch

    return {
        name: torch.full(tuple(shape), float(sign * number))
        for number, (name, shape) in enumerate(shapes.items(), start=1)
    }


def main() -> None:
    """Be the program."""
    import torch
    import windlass.torch.save_checkpoint

    torch.set_num_threads(1)
    shapes = json.loads(sys.stdin.readline())
    states = {sign: values(shapes, sign) for sign in (-1, 1)}

    def save(folder: str, checkpoint: list[Any]) -> None:
        sign, max_shard_size, safetensors = checkpoint
        windlass.save_torch_state_dict(
            states[sign], folder, max_shard_size=max_shard_size, safe_serialization=safetensors
        )

    going_on = 0
    for line in sys.stdin:
        match json.loads(line):
            case {"do": "save", "folder": folder, "checkpoint": checkpoint}:
                save(folder, checkpoint)
                answer = {}
            case {"do": "fork", "folder": folder, "checkpoint": checkpoint, "delay": delay}:
                answer = _fork_and_kill(lambda: save(folder, checkpoint), delay)
            case {"do": "copy states", "folder": folder, "checkpoint": checkpoint, "copies": to}:
                names = _copy_states(lambda: save(folder, checkpoint), folder, to)
                answer = {"names": names}
            case {"do": "save in turn", "folder": folder, "checkpoints": checkpoints}:
                going_on, _ = _fork(lambda: _in_turn(save, folder, checkpoints))
                answer = {}
            case {"do": "stop"}:
                os.kill(going_on, signal.SIGKILL)
                answer = {"status": os.waitpid(going_on, 0)[1]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _in_turn(save: Callable[[str, list[Any]], None], folder: str, checkpoints: list[Any]) -> None:
    while True:
        for checkpoint in checkpoints:
            begin = time.perf_counter()
            save(folder, checkpoint)
            time.sleep(time.perf_counter() - begin)


def _fork_and_kill(save: Callable[[], None], delay: float | None) -> dict[str, Any]:
    pid, ready = _fork(save)
    os.read(ready, 1)
    begin = time.perf_counter()
    if delay is None:
        os.read(ready, 1)
    else:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    seconds = time.perf_counter() - begin
    os.close(ready)
    _, status = os.waitpid(pid, 0)
    return {"status": status, "seconds": seconds}


def _fork(work: Callable[[], None]) -> tuple[int, int]:
    """Do something in a child; return it, and a pipe that gets a byte when it begins and ends."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, ready
    status = 1
    try:
        os.write(tell, b".")
        work()
        with contextlib.suppress(BrokenPipeError):  # Nobody may want to know.
            os.write(tell, b".")
        status = 0
    except BaseException:  # noqa: BLE001  (a child never returns to what its parent was doing)
        traceback.print_exc()
    finally:
        os._exit(status)


def _copy_states(save: Callable[[], None], folder: str, copies: str) -> list[str]:
    from builders import stepping

    def save_stepwise() -> None:
        stepping.let_parent_trace()
        save()

    pid, ready = _fork(save_stepwise)
    os.close(ready)
    names: list[str] = []
    seen: list[tuple[object, ...]] = []
    for _ in stepping.stops(pid):
        name = f"{len(names):04}"
        state = _copy_unless(seen, folder, Path(copies, name))
        if state != seen:
            seen = state
            names.append(name)
    return names


def _copy_unless(
    seen: list[tuple[object, ...]], folder: str, copy: Path
) -> list[tuple[object, ...]]:
    """Copy a folder unless its state has been seen; return its state.

    While one thread is stopped, another may go on, to its own next system call at most.
    """
    while True:
        with contextlib.suppress(FileNotFoundError, shutil.Error):
            state = _state(folder)
            if state == seen:
                return state
            shutil.copytree(folder, copy)
            if _state(folder) == state:
                return state
        shutil.rmtree(copy, ignore_errors=True)


def _state(folder: str) -> list[tuple[object, ...]]:
    """Return all that readers could tell apart; files in folders of a save by their names only."""
    entries: list[tuple[object, ...]] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            names = sorted((file.name, file.inode()) for file in os.scandir(entry.path))
            entries.append((entry.name, *names))
        else:
            status = entry.stat()
            facts = (status.st_ino, status.st_size, status.st_mtime_ns)
            entries.append((entry.name, *facts))
    return entries


if __name__ == "__main__":
    main()
