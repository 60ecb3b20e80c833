"""`_find_disjoint` and `_find_identical` of 4.46: names that share a storage, told apart by bytes.

`windlass.torch.aliases.find_aliases` is the engine's own account of the same, to the element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from windlass.torch.spans import find_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

NameSets: TypeAlias = list[set[str]]


def find_disjoint(
    tensors: Iterable[set[str]], state_dict: Mapping[str, torch.Tensor]
) -> tuple[NameSets, list[str]]:
    """Split sets of names by the bytes from a tensor's first element to its last.

    Args:
        tensors: names that share a storage.
        state_dict: tensors by name.

    Returns:
        Sets of two or more names of which each reaches into another's bytes, and the names that
        share no bytes with another of their set.

    Example:
        >>> one = torch.zeros(4)
        >>> find_disjoint([{"a", "b"}], {"a": one[:2], "b": one[2:]})
        ([], ['a', 'b'])
    """
    pieces = [piece for names in tensors for piece in _split(names, state_dict)]
    shared = [set(piece) for piece in pieces if len(piece) > 1]
    return shared, [piece[0] for piece in pieces if len(piece) == 1]


def find_identical(
    tensors: Iterable[set[str]], state_dict: Mapping[str, torch.Tensor]
) -> tuple[NameSets, NameSets]:
    """Sort sets of names into those of which all have the same bytes, and the others.

    Args:
        tensors: names that share a storage; sets of one are left out.
        state_dict: tensors by name.

    Returns:
        The others, then those with the same device, first and last byte.

    Example:
        >>> one = torch.zeros(4)
        >>> find_identical([{"a", "b"}], {"a": one, "b": one.view(2, 2)}) == ([], [{"a", "b"}])
        True
    """
    shared: NameSets = []
    identical: NameSets = []
    for names in tensors:
        if len(names) > 1:
            (identical if len(set(_areas(names, state_dict))) == 1 else shared).append(names)
    return shared, identical


def _split(names: set[str], state_dict: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Return names in the order of their bytes, cut where nothing reaches over."""
    ordered = sorted(names)
    by_start = sorted(zip(_areas(ordered, state_dict), ordered, strict=True))
    pieces: list[list[str]] = []
    reached = None
    for (space, start, end), name in by_start:
        if reached is None or (space, start) >= reached:
            pieces.append([])
        pieces[-1].append(name)
        reached = max(reached or (space, end), (space, end))
    return pieces


def _areas(
    names: Iterable[str], state_dict: Mapping[str, torch.Tensor]
) -> list[tuple[int, int, int]]:
    """Return memory, first address and address after the last, of each tensor."""
    spans = find_spans(state_dict[name] for name in names)
    return list(zip(spans.spaces, spans.starts, spans.ends, strict=True))
