"""Questions about the oracle, not about what it knows."""

from __future__ import annotations

import warnings
from typing import Any

import transformers
from transformers.utils import logging


def versions(_: None) -> str:
    return transformers.__version__


def echo(case: Any) -> Any:
    return case


def fail(case: str) -> None:
    raise UnicodeDecodeError("utf-8", b"x", 0, 1, case)


def speak(case: str) -> None:
    """Warn, print, and log twice what is logged once."""
    warnings.warn(case, FutureWarning, stacklevel=1)
    print(case)  # noqa: T201
    for _ in range(2):
        logging.get_logger("transformers.oracle").warning_once(case)
