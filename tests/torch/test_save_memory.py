"""A save needs memory of a fixed size, however large the tensors and whatever their strides."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: What a save may add to the largest size of the process, in MiB.
ALLOWED = 64
SIZE = 160

MEASURED = f"""
import json, sys, numpy, torch, windlass, windlass.numpy

def peak():
    with open("/proc/self/status") as facts:
        lines = [line for line in facts if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) / 1024

def reset():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")

rows, path = {SIZE} << 8, sys.argv[1]
tensor = torch.ones(rows, 1024)
mixed = tensor.view(-1, 2, 512).transpose(0, 1)
ways = {{
    "in order": lambda: windlass.save_file({{"x": tensor}}, path),
    "out of order": lambda: windlass.save_file({{"x": mixed}}, path),
    "cast": lambda: windlass.save_file({{"x": tensor}}, path, dtype=torch.float16),
    "both, in shards": lambda: windlass.save_torch_state_dict(
        {{str(n): part for n, part in enumerate(mixed.chunk(9, 1))}}, path + ".d",
        dtype=torch.float16, max_shard_size="40MB", checksums=True,
    ),
    "numpy": lambda: windlass.numpy.save_file({{"x": mixed.numpy()}}, path),
}}
windlass.save_file({{"x": torch.ones(2, 3).t()}}, path, dtype=torch.float16)
windlass.numpy.save_file({{"x": mixed[:3, :3].numpy()}}, path)
added = {{}}
for name, save in ways.items():
    reset()
    before = peak()
    save()
    added[name] = peak() - before
print(json.dumps(added))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_save_adds_no_more_memory_than_its_buffers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURED, tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    added = json.loads(done.stdout)
    assert len(added) == 5
    assert {name: size for name, size in added.items() if size > ALLOWED} == {}
