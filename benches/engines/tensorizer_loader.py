"""tensorizer: `TensorDeserializer` on one file in its own format, everything at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorizer import TensorDeserializer, TensorSerializer

from engines.converted import run_converted

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def convert(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write `tensors` as tensorizer does."""
    serializer = TensorSerializer(str(path))
    serializer.write_state_dict(tensors)
    serializer.close()


def read(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Read every tensor; they keep their memory when the deserializer closes."""
    (path,) = paths
    with TensorDeserializer(str(path), device="cpu") as deserializer:
        return {name: deserializer[name] for name in deserializer.keys()}  # noqa: SIM118


if __name__ == "__main__":
    run_converted(convert, read, ".tensors")
