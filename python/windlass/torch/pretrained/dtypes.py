"""The dtype that a model is loaded under: given, of the configuration, or of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windlass.dtype_names import DtypeName
from windlass.errors import UnknownDtype
from windlass.torch.dtypes import dtype_named

if TYPE_CHECKING:
    from windlass.torch.sources import Source


def find_dtype(wanted: object, config: Any, source: Source | None) -> torch.dtype | None:  # noqa: ANN401
    """Return the dtype that `torch_dtype=` means; `None` leaves it to torch's default.

    Args:
        wanted: a dtype, its name, `"auto"`, or `None`.
        config: of the model; for `"auto"` its `torch_dtype` goes first.
        source: the weights; for `"auto"` their first floating-point dtype goes second.

    Raises:
        ValueError: it is none of these, or no floating-point dtype.
    """
    if wanted is None:
        return None
    if wanted == "auto":
        wanted = getattr(config, "torch_dtype", None)
        if wanted is None:
            wanted = None if source is None else dtype_of_weights(source)
        if wanted is None:
            return None
    dtype = parse_dtype(wanted)
    if not dtype.is_floating_point:
        message = f"a model cannot be loaded under {dtype}: torch_dtype should be a floating one"
        raise ValueError(message)
    return dtype


def parse_dtype(value: object) -> torch.dtype:
    """Return a dtype given as itself or by name, `"float16"` or `"torch.float16"`.

    Raises:
        UnknownDtype: torch has no such dtype.

    Example:
        >>> parse_dtype("bfloat16")
        torch.bfloat16
    """
    if isinstance(value, torch.dtype):
        return value
    if not isinstance(value, str):
        message = (
            'torch_dtype should be a torch.dtype, its name such as "float16", or "auto"; '
            f"found {value!r}"
        )
        raise UnknownDtype(message)
    return dtype_named(DtypeName(value.removeprefix("torch.")))


def dtype_of_weights(source: Source) -> torch.dtype | None:
    """Return the first floating-point dtype of a checkpoint, if it has one."""
    dtypes = (source.layout(name).dtype for name in source.positions)
    return next((dtype for dtype in dtypes if dtype.is_floating_point), None)
