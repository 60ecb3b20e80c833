"""fastsafetensors: all files by one `SafeTensorsFileLoader` on the CPU, without GPUDirect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsafetensors import SafeTensorsFileLoader

from engines.protocol import parse_arguments
from engines.tasks import run_fresh

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def read(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Read every tensor of all files; they keep their memory when buffers and loader close."""
    loader = SafeTensorsFileLoader(None, device="cpu", nogds=True)
    loader.add_filenames({0: [str(path) for path in paths]})
    buffers = loader.copy_files_to_device()
    loaded = {name: buffers.get_tensor(name) for name in loader.get_keys()}
    buffers.close()
    loader.close()
    return loaded


if __name__ == "__main__":
    run_fresh(read, parse_arguments())
