"""Indexes of people → cuts of the engine, and what is left to do in memory."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from windlass.errors import InvalidSlice

#: Steps of up to so many bytes along the last dimension are taken in memory, after all between was
#: read: the engine keeps about as much for each place that it reads by itself.
_SMALL_STEP_BYTES = 128


class Cuts(NamedTuple):
    """Which part of a tensor is read, and how that becomes what was asked for.

    Attributes:
        cuts: for each dimension `(first, count, step)`; the last one has no small steps but 1.
        after: what to index the part with.
    """

    cuts: list[tuple[int, int, int]]
    after: tuple[int | slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part that is read."""
        return tuple(count for _, count, _ in self.cuts)

    @property
    def is_whole(self) -> bool:
        """Whether the part is the result."""
        return all(key == slice(None) for key in self.after)


def cut(
    name: str,
    shape: tuple[int, ...],
    index: Any,  # noqa: ANN401  (what people write)
    element_bytes: int,
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
    small_steps = [1] * (len(shape) - 1) + [_SMALL_STEP_BYTES // element_bytes]
    cuts: list[tuple[int, int, int]] = []
    rest: list[int | slice] = []
    for key, length, small_step in zip(keys, shape, small_steps, strict=False):
        try:
            found, left = _cut_dimension(key, length, small_step)
        except (TypeError, ValueError, IndexError) as error:
            raise _invalid(name, shape, index, str(error)) from None
        cuts.append(found)
        rest.append(left)
    return Cuts(cuts, tuple(rest))


def _cut_dimension(
    key: object, length: int, small_step: int
) -> tuple[tuple[int, int, int], int | slice]:
    if not isinstance(key, slice):
        if isinstance(key, bool) or not hasattr(key, "__index__"):
            message = f"expected integers and slices, found {type(key).__name__}"
            raise TypeError(message)
        number = operator.index(key)
        if not -length <= number < length:
            message = f"{number} is outside of a dimension of {length}"
            raise IndexError(message)
        return (number % length, 1, 1), 0
    first, stop, step = key.indices(length)
    if step < 0:
        message = f"expected a step of 1 or more, found {step}"
        raise ValueError(message)
    count = len(range(first, stop, step))
    if count == 0:
        return (0, 0, 1), slice(None)
    if 1 < step <= small_step:  # The bytes between are read: they are few.
        return (first, (count - 1) * step + 1, 1), slice(None, None, step)
    return (first, count, step), slice(None)


def _invalid(name: str, shape: tuple[int, ...], index: object, why: str) -> InvalidSlice:
    return InvalidSlice(f"tensor `{name}` of shape {list(shape)}, index {index!r}: {why}")
