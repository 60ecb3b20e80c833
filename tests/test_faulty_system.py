"""System calls that fail or are interrupted, in a process whose C library has them fail."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the calls are those of Linux")

SOURCE = Path(__file__).parent / "builders" / "faulty_calls.c"

#: Loads and saves with every third call of a kind failing, or every second one interrupted.
TRIED = """
import contextlib, errno, json, os, sys
import torch, windlass
from pathlib import Path

folder = Path(sys.argv[1])
state = {f"t{n}": torch.randn(600, 1000) for n in range(4)}
windlass.save_torch_state_dict(state, folder / "model", max_shard_size="5MB")

@contextlib.contextmanager
def failing(file, code, every, io="buffered"):
    os.environ.update(FAULTY_FILE=file, FAULTY_ERRNO=str(code), FAULTY_EVERY=str(every))
    if io == "mapped" and code == errno.EIO:
        os.environ["FAULTY_MAPS"] = "1"
    if io == "uring":
        os.environ["FAULTY_QUEUES"] = "1"
    try:
        yield
    finally:
        for name in (
            "FAULTY_FILE", "FAULTY_ERRNO", "FAULTY_EVERY", "FAULTY_MAPS", "FAULTY_QUEUES"
        ):
            os.environ.pop(name, None)

class Target(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name in state:
            self.register_buffer(name, torch.zeros(600, 1000))

def load(io):
    model = Target()
    windlass.load_sharded_checkpoint(model, folder / "model", io=io, threads=2)
    return model

def load_columns(io):
    checkpoint = windlass.Checkpoint(folder / "model")
    parts = {name: (..., slice(300, 800)) for name in state}
    return checkpoint.load(parts, io=io, threads=2)

def stream(io):
    checkpoint = windlass.Checkpoint(folder / "model")
    return dict(checkpoint.stream(io=io, threads=2, budget="100MB"))

def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

columns = {name: value[:, 300:800] for name, value in state.items()}
READS = {
    "load": lambda io: same(load(io).state_dict(), state),
    "columns": lambda io: same(load_columns(io), columns),
    "stream": lambda io: same(stream(io), state),
}

def attempt(act):
    try:
        act()
    except BaseException as error:
        notes = getattr(error, "__notes__", [])
        kind = [one.__name__ for one in type(error).__mro__]
        return {"kind": kind, "errno": getattr(error, "errno", None), "text": str(error),
                "notes": notes}
    return None

found = {}
for io in ("buffered", "direct", "mapped", "uring"):
    for what, read in READS.items():
        with failing("model-0", errno.EINTR, 2, io):
            found[f"interrupted {what} {io}"] = attempt(lambda: read(io))
        with failing("model-0", errno.EIO, 8 if io != "uring" else 3, io):
            found[f"failing {what} {io}"] = attempt(lambda: read(io))

for durable in (False, True):
    way = "durable" if durable else "plain"
    other = {name: value + 1 for name, value in state.items()}
    with failing("windlass-", errno.EINTR, 2):
        found["interrupted save " + way] = attempt(lambda: windlass.save_torch_state_dict(
            other, folder / way, max_shard_size="5MB", durable=durable))
    for name, value in windlass.Checkpoint(folder / way).load().items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)
    before = sorted(path.name for path in (folder / way).iterdir())
    for every in (1, 2, 3, 5, 7):
        with failing("windlass-", errno.EIO, every):
            found[f"failing save {way} {every}"] = attempt(
                lambda: windlass.save_torch_state_dict(
                    state, folder / way, max_shard_size="5MB", durable=durable))
        assert sorted(path.name for path in (folder / way).iterdir()) == before
    for name, value in windlass.Checkpoint(folder / way).load().items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what became of each attempt, by its name."""
    folder = tmp_path_factory.mktemp("faulty")
    shim = folder / "faulty_calls.so"
    build = ["cc", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(shim), "-ldl"]
    subprocess.run(build, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", TRIED, folder],
        env={**os.environ, "LD_PRELOAD": str(shim), "WINDLASS_NO_PROGRESS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_interrupted_calls_are_made_again(found: dict[str, Any]) -> None:
    tried = {name: error for name, error in found.items() if name.startswith("interrupted")}
    assert len(tried) == 14
    assert {name: error for name, error in tried.items() if error} == {}


@pytest.mark.parametrize("what", ["load", "columns", "stream"])
@pytest.mark.parametrize("io", ["buffered", "direct", "mapped", "uring"])
def test_disk_that_fails_half_way_is_named_with_file_and_tensor(
    found: dict[str, Any], io: str, what: str
) -> None:
    error = found[f"failing {what} {io}"]
    if error is None:
        assert io == "uring", "only queues may be refused by the system"
        return
    assert {"ReadFailed", "OSError"} <= set(error["kind"])
    assert error["errno"] == errno.EIO
    assert "model-0000" in error["text"]
    assert "tensor `t" in error["text"]
    if what == "load":  # Which fills what the caller has.
        (note,) = error["notes"]
        assert "partly loaded" in note
        assert "`t" in note


def test_disk_that_fails_during_a_save_leaves_the_old_checkpoint(found: dict[str, Any]) -> None:
    tried = {name: error for name, error in found.items() if name.startswith("failing save")}
    assert len(tried) == 10
    for name, error in tried.items():
        assert {"SaveFailed", "OSError"} <= set(error["kind"]), name
        assert "windlass-" in error["text"], error
