"""Saves that are killed half way, and what is in their folder then.

As a program it is the process that saves: it has changed weights, and forks for each save a child
that it kills so many seconds after its first trace in the folder. It reads them from its input, one
number a line (`inf` kills nobody), and answers with the seconds from that trace to the end; `inf`
if the save was over before.

    python examples/kills.py FOLDER
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import windlass
from huggingface_hub import load_torch_model
from minilm import MAX_SHARD_SIZE, PACKAGE_FOLDER, same_bits
from safetensors.torch import load_file
from terminal import DemoFailed, bar, say, say_table, seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

MOMENTS = (0, 0.2, 0.4, 0.6, 0.8)  # Of the time that a whole save takes.
CHANGE = 1
ORIGINAL, CHANGED = "the original", "changed"


def kill_saves(model: nn.Module, folder: Path, original: Mapping[str, torch.Tensor]) -> None:
    """Kill saves of changed weights at several moments; fail if one leaves a mixture."""
    states = {ORIGINAL: original, CHANGED: change(original)}
    names = sorted(os.listdir(folder))
    say("Another process saves changed weights (each 1 larger) into the same folder:")
    rows = []
    with saver(folder) as save, bar(2 + len(MOMENTS), "saving") as progress:
        whole = min(save(float("inf")), save(float("inf")))
        progress.update(2)
        require(find_weights(model, folder, states) == CHANGED, "a whole save changed nothing")
        for moment in MOMENTS:
            lived = save_again_and_kill(save, moment * whole, original, folder)
            progress.update()
            left = sorted(set(os.listdir(folder)).difference(names))
            found = find_weights(model, folder, states)
            windlass.recover(folder)
            require(sorted(os.listdir(folder)) == names, "windlass.recover left something behind")
            require(find_weights(model, folder, states) == found, "recover() changed the weights")
            rows.append((seconds_text(lived), found, str(len(left)), "0"))
    say(f"Not killed, it takes {seconds_text(whole)}, and every weight is changed. Killed:")
    say_table(("after", "every weight is", "names left behind", "after recover()"), rows, left=2)
    say("Loaded by windlass and by huggingface_hub: all weights are of one save, each time. A save")
    say("that is killed after its last byte may have replaced the original; it is then complete.")


def save_again_and_kill(
    save: Callable[[float], float],
    seconds: float,
    original: Mapping[str, torch.Tensor],
    folder: Path,
) -> float:
    """Bring the original back, and kill a save over it; sooner, if it was over too soon."""
    lived = float("inf")
    names = os.listdir(folder)
    while lived == float("inf") or len(os.listdir(folder)) == len(names):
        windlass.save_torch_state_dict(original, folder, max_shard_size=MAX_SHARD_SIZE)
        lived = save(seconds)
        seconds /= 2
    return lived


def change(original: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return other weights, none of which equals its original."""
    return {name: tensor + CHANGE for name, tensor in original.items()}


def find_weights(
    model: nn.Module, folder: Path, states: Mapping[str, Mapping[str, torch.Tensor]]
) -> str:
    """Load the folder twice, and say which of two states all weights are of; fail otherwise."""
    found: set[str] = set()
    for load in (windlass.load_torch_model, load_torch_model):
        load(model, folder)
        weights = model.state_dict()
        found.update(
            word
            for word, state in states.items()
            if all(same_bits(weight, state[name]) for name, weight in weights.items())
        )
    require(len(found) == 1, "a killed save left neither the old weights nor the new ones")
    return found.pop()


def require(is_right: bool, failure: str) -> None:  # noqa: FBT001  (it reads as a sentence)
    """Fail the demo unless something is as it should be."""
    if not is_right:
        raise DemoFailed(failure)


@contextlib.contextmanager
def saver(folder: Path) -> Iterator[Callable[[float], float]]:
    """Start this file as a program; give what saves and kills after some seconds."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def save(seconds: float) -> float:
            assert process.stdin is not None  # noqa: S101  (both are pipes)
            assert process.stdout is not None  # noqa: S101
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            require(bool(answer), "the process that saves has ended")
            return float(answer)

        yield save


def main() -> None:
    """Be the process that saves."""
    torch.set_num_threads(1)  # Only a process without threads can be forked.
    weights = change(load_file(PACKAGE_FOLDER / "model.safetensors"))
    for line in sys.stdin:
        print(save_and_kill(weights, Path(sys.argv[1]), float(line)), flush=True)


def save_and_kill(weights: Mapping[str, torch.Tensor], folder: Path, seconds: float) -> float:
    """Save in a child, and kill it some seconds after its first trace; see above."""
    names = os.listdir(folder)
    pid = os.fork()
    if pid == 0:
        windlass.save_torch_state_dict(weights, folder, max_shard_size=MAX_SHARD_SIZE)
        os._exit(0)
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while len(os.listdir(folder)) == len(names) and not os.waitid(os.P_PID, pid, ended):
        time.sleep(0)
    start = time.perf_counter()
    if seconds != float("inf"):
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    lived = time.perf_counter() - start
    if os.WIFEXITED(status) and status:
        sys.exit("the save failed")
    return lived if os.WIFSIGNALED(status) or seconds == float("inf") else float("inf")


if __name__ == "__main__":
    main()
