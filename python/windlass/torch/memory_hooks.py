"""Hooks by which modules count how much resident memory their forward passes took."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def add(model: nn.Module) -> None:
    """Hook every module of a model.

    Raises:
        OSError: the system does not tell how much memory the process has.
    """
    _resident_bytes()
    for module in model.modules():
        module.register_forward_pre_hook(_before)
        module.register_forward_hook(_after)


def reset(model: nn.Module) -> None:
    """Set the counts of every module to zero."""
    counted: Any
    for counted in model.modules():
        counted.mem_rss_diff = 0
        counted.mem_rss_post_forward = 0
        counted.mem_rss_pre_forward = 0


def _before(module: Any, *_: object) -> None:  # noqa: ANN401  (has attributes of ours)
    module.mem_rss_pre_forward = _resident_bytes()


def _after(module: Any, *_: object) -> None:  # noqa: ANN401
    module.mem_rss_post_forward = _resident_bytes()
    grown = module.mem_rss_post_forward - module.mem_rss_pre_forward
    module.mem_rss_diff = getattr(module, "mem_rss_diff", 0) + grown


def _resident_bytes() -> int:
    """Return the resident memory of this process, from Linux itself or else by psutil."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError as error:
        try:
            psutil = importlib.import_module("psutil")
        except ModuleNotFoundError:
            message = "no /proc here to read the memory of this process from: pip install psutil"
            raise OSError(message) from error
        return int(psutil.Process().memory_info().rss)
