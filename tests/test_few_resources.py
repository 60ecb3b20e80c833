"""A process that may open few files, or has little memory left: it works, or one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")

COMMON = """
import json, os, resource, sys
import torch, windlass, windlass.numpy
from pathlib import Path

torch.set_num_threads(1)  # OpenMP ends a process in which it cannot start threads.
folder = Path(sys.argv[1])

def model_of(state, dtype=None):
    model = torch.nn.Module()
    for name, value in state.items():
        model.register_buffer(name, torch.zeros(value.shape, dtype=dtype or value.dtype))
    return model

def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

def attempt(act):
    try:
        act()
    except Exception as error:
        kind = [one.__name__ for one in type(error).__mro__]
        return {"kind": kind, "text": str(error), "errno": getattr(error, "errno", None),
                "notes": getattr(error, "__notes__", [])}
    return None
"""

FEW_FILES = (
    COMMON
    + """
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
state = {f"t{n:03}": torch.full((1000,), float(n)) for n in range(200)}

def load(**how):
    model = model_of(state)
    windlass.load_sharded_checkpoint(model, folder / "c", **how)
    same(model.state_dict(), state)

tried = {
    "save": lambda: windlass.save_torch_state_dict(state, folder / "c", max_shard_size=4000),
    "save again": lambda: windlass.save_torch_state_dict(state, folder / "c", max_shard_size=4000),
    "durable": lambda: windlass.save_torch_state_dict(
        state, folder / "d", max_shard_size=4000, durable=True, checksums=True),
    "background": lambda: windlass.save_async(state, folder / "c", max_shard_size=4000).result(),
    "pickles": lambda: windlass.save_torch_state_dict(
        state, folder / "p", max_shard_size=4000, safe_serialization=False),
    "open": lambda: windlass.Checkpoint(folder / "c"),
    **{io: (lambda io: lambda: load(io=io))(io) for io in (
        "auto", "mapped", "buffered", "direct", "uring")},
    "dropping": lambda: load(cache="drop"),
    "assign": lambda: load(assign=True),
    "assign owned": lambda: load(assign=True, memory="owned"),
    "hub": lambda: windlass.load_torch_model(model_of(state), folder / "d", verify=True),
    "of pickles": lambda: windlass.load_sharded_checkpoint(model_of(state), folder / "p"),
    "stream": lambda: same(
        dict(windlass.Checkpoint(folder / "c").stream(budget="1MB")), state),
    "all": lambda: same(windlass.Checkpoint(folder / "c").load(), state),
    "parts": lambda: same(
        windlass.Checkpoint(folder / "c").load(dict.fromkeys(state, slice(0, 999, 3))),
        {name: value[0:999:3] for name, value in state.items()}),
    "verify": lambda: windlass.verify(folder / "d"),
}
found = {name: attempt(act) for name, act in tried.items()}
assert len(list((folder / "c").glob("*.safetensors"))) == 200

model, taken = model_of(state), []
while True:
    try:
        taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
refused = {name: attempt(act) for name, act in {
    "open": lambda: windlass.Checkpoint(folder / "c"),
    "load": lambda: windlass.load_sharded_checkpoint(model, folder / "c"),
    "save": lambda: windlass.save_torch_state_dict(state, folder / "c"),
    "save file": lambda: windlass.save_file(state, folder / "f"),
}.items()}
for descriptor in taken:
    os.close(descriptor)
assert not any(value.any() for value in model.state_dict().values())
load()
print(json.dumps([found, refused]))
"""
)

LITTLE_MEMORY = (
    COMMON
    + """
MIB = 1 << 20
state = {f"t{n}": torch.full((1 << 20,), float(n + 1)) for n in range(8)}  # 32 MiB
strided = {name: value.view(1024, 1024).t() for name, value in state.items()}
many = {f"layer.with.a.long.name.{n}": torch.zeros(1) for n in range(10_000)}
windlass.save_torch_state_dict(state, folder / "c", max_shard_size="10MB", checksums=True)
windlass.save_torch_state_dict(many, folder / "many", max_shard_size="20KB")
windlass.save_file(many, folder / "many.safetensors")
shard = folder / "c" / "model-00001-of-00004.safetensors"
plain, cast = model_of(state), model_of(state, torch.float16)
far = model_of(state, torch.complex64)

def load(model, **how):
    windlass.load_sharded_checkpoint(model, folder / "c", **how)

def untouched(model):
    return not any(value.any() for value in model.state_dict().values())

tried = {
    "into a model": lambda: load(plain),
    "mapped": lambda: load(plain, io="mapped"),
    "direct": lambda: load(plain, io="direct"),
    "uring": lambda: load(plain, io="uring"),
    "parts": lambda: windlass.Checkpoint(folder / "c").load(
        dict.fromkeys(state, slice(0, None, 3))),
    "cast": lambda: load(cast),
    "staged": lambda: load(far),
    "assigned": lambda: load(model_of({}), strict=False, assign=True),
    "owned": lambda: windlass.load_file(shard, memory="owned"),
    "map": lambda: windlass.load_file(shard),
    "numpy": lambda: windlass.numpy.load_file(
        shard, memory="owned"),
    "stream": lambda: [
        None for _ in windlass.Checkpoint(folder / "c").stream(budget="32MB")],
    "verify": lambda: windlass.verify(folder / "c"),
    "many names": lambda: windlass.Checkpoint(folder / "many.safetensors"),
    "many files": lambda: windlass.Checkpoint(folder / "many"),
    "save": lambda: windlass.save_torch_state_dict(state, folder / "s", max_shard_size="10MB"),
    "save strided": lambda: windlass.save_file(strided, folder / "strided", on_overlap="store"),
    "save cast": lambda: windlass.save_file(state, folder / "cast", dtype=torch.float16),
    "save bytes": lambda: windlass.save(state),
    "background": lambda: windlass.save_async(state, folder / "s").result(),
}
for act in tried.values():
    act()  # What is imported and set up at the first call is no matter of this test.
assert not untouched(plain)

def size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

hard = resource.getrlimit(resource.RLIMIT_AS)[1]
found = {}
for name, act in tried.items():
    for extra in (0, 4, 16, 40):
        before = size()
        resource.setrlimit(resource.RLIMIT_AS, (before + extra * MIB, hard))
        outcome = attempt(act)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        found[f"{name}, {extra} MiB"] = outcome
for act in tried.values():
    act()
print(json.dumps(found))
"""
)


def _run(script: str, folder: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return json.loads(done.stdout)


@pytest.mark.timeout(240)
def test_200_shards_are_saved_and_loaded_with_64_files_open(tmp_path: Path) -> None:
    found, refused = _run(FEW_FILES, tmp_path)
    assert {name: error for name, error in found.items() if error} == {}
    for name, error in refused.items():
        assert "OSError" in error["kind"], (name, error)
        assert "WindlassError" in error["kind"], (name, error)
        assert "Too many open files" in error["text"], (name, error)
        assert str(tmp_path) in error["text"], (name, error)


@pytest.mark.timeout(240)
def test_memory_that_cannot_be_had_is_an_error_and_no_end_of_the_process(tmp_path: Path) -> None:
    found = _run(LITTLE_MEMORY, tmp_path)
    refused = {name: error for name, error in found.items() if error}
    assert {
        name: error for name, error in refused.items() if "MemoryError" not in error["kind"]
    } == {}
    assert {name: error for name, error in refused.items() if len(error["text"]) < 10} == {}
    assert {"map", "mapped", "background"} <= {name.split(",")[0] for name in refused}
