"""A file system of a few pages in a namespace of its own, and saves into what room it has left.

Run as a program (`python -m builders.full_disk FOLDER`) it mounts the file system and prints, as
JSON, how each save ended; `saves_with_little_left` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: Begins a program that may mount what nobody else sees.
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
PAGE = 4096
#: More than any of the saves needs: pages, and files.
MOST_LEFT = {"pages": 24, "files": 12}


class End(NamedTuple):
    """How a save ended that had this many pages, or files, left."""

    left: int
    #: Class of the error, or none.
    error: str | None
    #: What the folder holds then: "old", "new", or what is wrong.
    found: str


def refusal() -> str:
    """Return why this machine lets nobody mount a file system; nothing where it does."""
    command = (*IN_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt")
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr if tried.returncode else ""


def saves_with_little_left(folder: Path) -> dict[str, list[End]]:
    """Save with 0, 1, 2, … pages or files left; by way of saving, and what there is little of."""
    program = (sys.executable, "-m", "builders.full_disk", str(folder))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = (*IN_NAMESPACE, *program)
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return {case: [End(*end) for end in ends] for case, ends in json.loads(ran.stdout).items()}


def _main(folder: Path) -> None:
    import torch
    import windlass
    from windlass.errors import WindlassError

    from builders.saves import file_names, folder_bytes, holds

    checkpoint = folder / "checkpoint"
    options = "size=512k,nr_inodes=64"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    checkpoint.mkdir()
    old = {f"t{number}": torch.full((700,), number + 1.0) for number in range(4)}
    new = {name: -tensor for name, tensor in old.items()}
    shards = partial(windlass.save_torch_state_dict, save_directory=checkpoint)
    ways: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
        "file": lambda state: windlass.save_file(state, checkpoint / "model.safetensors"),
        "folder": partial(shards, checksums=True),
        "shards": partial(shards, max_shard_size=6000),
        "durable": partial(shards, max_shard_size=3000, durable=True),
        "pickle": partial(shards, max_shard_size=6000, safe_serialization=False),
    }

    def found(way: str, before: dict[str, bytes]) -> str:
        if folder_bytes(checkpoint) == before:
            return "old"
        model = torch.nn.ParameterDict({name: torch.zeros(700) for name in new})
        windlass.load_torch_model(model, checkpoint, safe=way != "pickle", strict=True)
        return "new" if holds(model.state_dict(), new) else f"{file_names(checkpoint)}"

    def attempt(way: str, what: str, left: int) -> End:
        shutil.rmtree(checkpoint)
        checkpoint.mkdir()
        ways[way](old)
        before = folder_bytes(checkpoint)
        ballast = _leave(folder, what, left)
        error = None
        try:
            ways[way](new)
        except WindlassError as caught:
            error = type(caught).__name__
        for path in ballast:
            path.unlink()
        return End(left, error, found(way, before))

    ends = {
        f"{way}, {what}": [attempt(way, what, left) for left in range(most)]
        for way in ways
        for what, most in MOST_LEFT.items()
    }
    sys.stdout.write(json.dumps(ends))


def _leave(disk: Path, what: str, left: int) -> list[Path]:
    """Fill the disk until it has so many pages or files left; return what fills it."""
    free = os.statvfs(disk)
    if what == "pages":
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (free.f_bavail * free.f_frsize) - left * PAGE)
        return [ballast]
    many = [disk / f"ballast{number}" for number in range(free.f_favail - left)]
    for path in many:
        path.touch()
    return many


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
