"""Which weights of a model look into its files, and files of which none can."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def names_mapped(model: nn.Module, folder: Path) -> set[str]:
    """Return the names of all weights and saved buffers that lie in a file of the folder.

    Their memory is not torch's own; a system that tells its maps has to say the same.
    """
    state = model.state_dict(keep_vars=True)
    found = {name for name, one in state.items() if not one.untyped_storage().resizable()}
    maps = Path("/proc/self/maps")
    if maps.exists():
        lines = [line for line in maps.read_text().splitlines() if f"{folder}{os.sep}" in line]
        ends = [line.split()[0].split("-") for line in lines]
        spans = [range(int(start, 16), int(end, 16)) for start, end in ends]
        assert found == {
            name for name, one in state.items() if any(one.data_ptr() in span for span in spans)
        }
    return found


def misalign(path: Path) -> None:
    """Rewrite a safetensors file so that its data begin at an odd byte, as the format allows."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes((end - 7).to_bytes(8, "little") + data[8:end] + b" " + data[end:])
