"""`io="uring"`: where a sandbox refuses it, and every way of reading while signals pour in."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model, write_safe
from windlass import _rust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is io_uring only on Linux")

#: A process that may not make one system call: it gets an error number instead. It then reads the
#: tensor `x` of a file, and tells how.
SANDBOXED = """
import ctypes, struct, sys

path, nbytes, call, code = sys.argv[1], *map(int, sys.argv[2:])
libc = ctypes.CDLL(None, use_errno=True)
steps = [
    (0x20, 0, 0, 0),                      # Load the number of the call.
    (0x15, 0, 1, call),                   # Is it this one?
    (0x06, 0, 0, 0x00050000 | code),      # Then this error.
    (0x06, 0, 0, 0x7FFF0000),             # Else go ahead.
]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
head = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
for arguments in [(38, 1, 0, 0, 0), (22, 2, head, 0, 0)]:
    if libc.prctl(*arguments):
        sys.exit(f"prctl: {ctypes.get_errno()}")

from windlass import _rust

memory = bytearray(nbytes)
table = _rust.Checkpoint.open_file(path, strict_format=False)
stats = table.read_into(["x"], [memory], threads=0, io="uring")
[(_, backend, reason, _)] = stats["ways"]
print(sum(memory), backend, reason, sep="|")
"""
SETUP, ENTER = 425, 426
IOS = ("auto", "mapped", "buffered", "direct", "uring")


def _refusal(path: Path) -> str | None:
    """Return why there is no io_uring here, if so."""
    table = _rust.Checkpoint.open_file(str(path), strict_format=False)
    stats = table.read_into(["x"], [bytearray(1000)], threads=0, io="uring")
    [(_, _, reason, _)] = stats["ways"]
    return reason if "io_uring" in reason else None


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("call", [SETUP, ENTER])
def test_refusal_of_a_sandbox_is_told_and_reads_go_on(tmp_path: Path, call: int, code: int) -> None:
    tensor = torch.arange(1000, dtype=torch.int64).to(torch.uint8)
    path = write_safe(tmp_path / "model.safetensors", {"x": tensor})
    already = _refusal(path)
    arguments = [str(path), str(tensor.numel()), str(call), str(code)]
    done = subprocess.run(
        [sys.executable, "-c", SANDBOXED, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    checksum, backend, reason = done.stdout.strip().split("|")
    assert (int(checksum), backend) == (int(tensor.long().sum()), "buffered")
    assert reason in {already, f"io_uring was refused: {os.strerror(code)} (os error {code})"}


def test_reads_through_queues_or_instead_of_them_are_told_as_such(tmp_path: Path) -> None:
    path = write_safe(tmp_path / "model.safetensors", {"x": torch.ones(1000, dtype=torch.uint8)})
    table = _rust.Checkpoint.open_file(str(path), strict_format=False)
    stats = table.read_into(["x"], [bytearray(1000)], threads=2, io="uring")
    refusal = _refusal(path)
    way = ("buffered", refusal) if refusal else ("uring", "too little to look first")
    assert stats["backend"] == way[0]
    assert stats["ways"] == [(0, *way, 1000)]


@pytest.fixture
def storm() -> Iterator[Callable[[], object]]:
    """Give a function that has every thread of this process interrupted, again and again."""
    libc, stop = ctypes.CDLL(None), threading.Event()

    def blow() -> None:
        while not stop.is_set():
            for task in os.listdir("/proc/self/task"):
                libc.tgkill(os.getpid(), int(task), signal.SIGUSR1)

    # It stays: signals may still be on their way when the test ends, and Python tells of each whose
    # handler has gone meanwhile.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    thread = threading.Thread(target=blow)
    yield thread.start
    stop.set()
    thread.join()


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("cache", ["keep", "drop"])
def test_signals_in_the_middle_of_reads_change_nothing(
    tmp_path: Path, storm: Callable[[], object], io: Any, cache: Any
) -> None:
    state = {str(n): random_tensor((1 << 20,), torch.float32, n) for n in range(4)}
    folder = write_model(tmp_path / "c", state, count=2)
    model = torch.nn.ParameterDict({name: torch.empty(1 << 20) for name in state})
    storm()
    for _ in range(3):
        for shard in folder.iterdir():
            with shard.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        windlass.load_sharded_checkpoint(model, folder, io=io, cache=cache, progress=False)
        assert all(same_bits(model[name].detach(), state[name]) for name in state)
        for parameter in model.parameters():
            parameter.data.zero_()
