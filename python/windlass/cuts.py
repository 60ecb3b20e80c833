"""Indexes of people → cuts of the engine."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from windlass.errors import InvalidSlice


class Cuts(NamedTuple):
    """Which part of a tensor is read.

    Attributes:
        cuts: for each dimension `(first, count, step)`.
        shape: of the part; it has no dimension where the index is an integer.
    """

    cuts: list[tuple[int, int, int]]
    shape: tuple[int, ...]


def cut(
    name: str,
    shape: tuple[int, ...],
    index: Any,  # noqa: ANN401  (what people write)
) -> Cuts:
    """Resolve an index of integers, slices and at most one `...`.

    Raises:
        InvalidSlice: anything else, a negative step, too many of them, or an integer outside.
    """
    keys = list(index) if isinstance(index, tuple) else [index]
    dots = [position for position, key in enumerate(keys) if key is ...] or [len(keys)]
    given = sum(key is not ... for key in keys)
    if len(dots) > 1 or given > len(shape):
        raise _invalid(name, shape, index, "expected no more parts than dimensions")
    keys[dots[0] : dots[0] + 1] = [slice(None)] * (len(shape) - given)
    cuts: list[tuple[int, int, int]] = []
    for key, length in zip(keys, shape, strict=False):
        try:
            cuts.append(_cut_dimension(key, length))
        except (TypeError, ValueError, IndexError) as error:
            raise _invalid(name, shape, index, str(error)) from None
    counts = (
        count for key, (_, count, _) in zip(keys, cuts, strict=True) if isinstance(key, slice)
    )
    return Cuts(cuts, tuple(counts))


def _cut_dimension(key: object, length: int) -> tuple[int, int, int]:
    if not isinstance(key, slice):
        if isinstance(key, bool) or not hasattr(key, "__index__"):
            message = f"expected integers and slices, found {type(key).__name__}"
            raise TypeError(message)
        number = operator.index(key)
        if not -length <= number < length:
            message = f"{number} is outside of a dimension of {length}"
            raise IndexError(message)
        return number % length, 1, 1
    first, stop, step = key.indices(length)
    if step < 0:
        message = f"expected a step of 1 or more, found {step}"
        raise ValueError(message)
    count = len(range(first, stop, step))
    return (first, count, step) if count else (0, 0, 1)


def _invalid(name: str, shape: tuple[int, ...], index: object, why: str) -> InvalidSlice:
    return InvalidSlice(f"tensor `{name}` of shape {list(shape)}, index {index!r}: {why}")
