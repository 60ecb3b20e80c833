"""huggingface_hub itself, when it is there, and what it is told about who asks."""

from __future__ import annotations

import importlib
from typing import Any

from windlass._rust import __version__

#: What every request says of who makes it.
ASKED_BY = {"library_name": "windlass", "library_version": __version__}


def hub_library(module: str = "huggingface_hub") -> Any:  # noqa: ANN401  (its types would be needed to check without it)
    """Import huggingface_hub, or a module of it.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = "models of the hub need huggingface_hub: pip install 'windlass[hub]'"
        raise ModuleNotFoundError(message) from error


def hub_api() -> Any:  # noqa: ANN401
    """Return the hub's API at `HF_ENDPOINT`."""
    return hub_library().HfApi(**ASKED_BY)
