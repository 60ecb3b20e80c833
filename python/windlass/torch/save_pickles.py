"""Tensors → pickles of torch: what may be saved, and how one file is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import is_lazy

from windlass.errors import SaveFailed, UnsupportedTensor
from windlass.names import check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from windlass.types import PathLike


def pickled_values(named: Iterable[tuple[str, object]]) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict that is to be pickled.

    Raises:
        InvalidName: a name that is not text, which no loader takes.
        UnsupportedTensor: no tensor, or one without values.
    """
    values: dict[str, torch.Tensor] = {}
    for name, value in named:
        check_text(f"tensor `{name}`", name)
        if not isinstance(value, torch.Tensor) or is_lazy(value) or value.is_meta:
            found = (
                "one without values" if isinstance(value, torch.Tensor) else type(value).__name__
            )
            message = f"tensor `{name}`: expected a tensor with values, found {found}"
            raise UnsupportedTensor(message)
        values[name] = value
    return values


def write_pickle(values: Mapping[str, torch.Tensor], path: PathLike) -> None:
    """Write one file, in which tensors that share memory go on sharing it.

    Raises:
        SaveFailed: the system refused.
    """
    try:
        torch.save(values, path)
    except (OSError, RuntimeError) as error:  # What the system says, torch tells as RuntimeError.
        message = f"`{path}`: torch.save failed: {error}"
        raise SaveFailed(message) from error
