"""flashpack: one file in its own format, read into aligned memory by several threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashpack import pack_to_file
from flashpack.deserialization import iterate_from_flash_tensor, read_flashpack_file

from engines.converted import run_converted

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def convert(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write `tensors` as flashpack does, without a cast."""
    pack_to_file(tensors, str(path), None)


def read(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Read the file and make every tensor of it."""
    (path,) = paths
    storage, metadata = read_flashpack_file(str(path), device="cpu")
    return dict(iterate_from_flash_tensor(storage, metadata))


if __name__ == "__main__":
    run_converted(convert, read, ".flashpack")
