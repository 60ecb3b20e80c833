"""runai-model-streamer: all files by one `SafetensorsStreamer`, whose tensors the caller owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runai_model_streamer import SafetensorsStreamer

from engines.protocol import parse_arguments
from engines.tasks import run_fresh

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def read(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Stream every tensor of all files and keep it."""
    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(path) for path in paths], device="cpu", owned=True)
        return dict(streamer.get_tensors())


if __name__ == "__main__":
    run_fresh(read, parse_arguments())
