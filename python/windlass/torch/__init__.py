"""torch: load files, and fill models. Everything that imports torch is in this package."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401  (only to say what to do where it is missing)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this needs torch: pip install 'windlass[torch]'") from error

from windlass.safe import safe_open
from windlass.torch.aliases import AliasGroup, find_aliases
from windlass.torch.files import load_file
from windlass.torch.load import load_sharded_checkpoint

__all__ = ["AliasGroup", "find_aliases", "load_file", "load_sharded_checkpoint", "safe_open"]
