"""torch: load files, and fill models. Everything that imports torch is in this package."""

from __future__ import annotations

from windlass.safe import safe_open
from windlass.torch.files import load_file
from windlass.torch.load import load_sharded_checkpoint

__all__ = ["load_file", "load_sharded_checkpoint", "safe_open"]
