"""`find_aliases`: names of a state dict that share memory.

The judgement, exact to the byte, is the engine's (`windlass_core::alias`); here tensors become
addresses, shapes and strides. No byte is read, and no tensor is changed, not even in whether its
storage may be resized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch

from windlass import _rust
from windlass.quiet import paused_gc
from windlass.torch.spans import PLAIN, Spans, find_spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: How the tensors of a group share their bytes.
Relation: TypeAlias = Literal["identical", "same_bytes", "nested", "overlapping"]


class AliasGroup(NamedTuple):
    """Names connected by sharing at least one byte of elements.

    Attributes:
        names: two or more, in the order of the state dict.
        relation: `"identical"`: same dtype, shape, strides and place. `"same_bytes"`: exactly the
            same bytes, seen otherwise (reshaped, transposed, expanded, conjugated, of another
            dtype). `"nested"`: one of them covers all others. `"overlapping"`: anything else.
    """

    names: list[str]
    relation: Relation


def find_aliases(state_dict: Mapping[str, object]) -> list[AliasGroup]:
    """Find the names that share memory, in order of first appearance.

    Memory is what counts, not the storage that tensors call their own: two slices of one storage
    that have no byte in common are apart, two tensors made over one buffer are not. Exact for any
    strides, up to 1,048,576 contiguous pieces for tensors whose addresses touch; beyond that a
    tensor is taken to fill its range, and called an alias rather than not.

    In no group are tensors without elements, tensors of the meta device, and what is no tensor. A
    tensor that does not tell its address (sparse, or a subclass with a dispatch of its own such as
    `DTensor`) is an alias of the very same object only.

    Args:
        state_dict: tensors by name; other values are passed over.

    Example:
        >>> weight = torch.zeros(4, 3)
        >>> find_aliases({"embed": weight, "bias": torch.zeros(4), "head": weight})
        [AliasGroup(names=['embed', 'head'], relation='identical')]
        >>> find_aliases({"whole": weight, "rows": weight[:2], "columns": weight[:, 1:]})
        [AliasGroup(names=['whole', 'rows', 'columns'], relation='nested')]
        >>> find_aliases({"left": weight[:, :1], "right": weight[:, 1:]})
        []
    """
    with paused_gc():
        names = [name for name, value in state_dict.items() if isinstance(value, torch.Tensor)]
        tensors = [value for value in state_dict.values() if isinstance(value, torch.Tensor)]
        groups = sorted(_find_groups(tensors))
        return [AliasGroup([names[i] for i in members], relation) for members, relation in groups]


def _find_groups(tensors: Sequence[torch.Tensor]) -> Iterator[tuple[list[int], Relation]]:
    bare = [_bare(tensor) for tensor in tensors]
    spans = find_spans(bare)
    yield from _find_same_bytes(bare, spans)
    yield from _find_same_objects(tensors, spans.unplaced)


def _bare(tensor: torch.Tensor) -> torch.Tensor:
    """Return a subclass that has memory of its own kind as the plain tensor that it is."""
    cls = type(tensor)
    if cls in PLAIN or cls.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return tensor
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        return tensor.as_subclass(torch.Tensor) if tensor.layout is torch.strided else tensor


def _find_same_bytes(
    tensors: Sequence[torch.Tensor], spans: Spans
) -> Iterator[tuple[list[int], Relation]]:
    positions = sorted(position for group in spans.find_touching() for position in group)
    kinds: dict[tuple[torch.dtype, bool, bool], int] = {}
    views = []
    for position in positions:
        tensor = tensors[position]
        kind = kinds.setdefault((tensor.dtype, tensor.is_conj(), tensor.is_neg()), len(kinds))
        address = spans.starts[position]
        layout = (tensor.shape, tensor.stride(), tensor.element_size())
        views.append((spans.spaces[position], address, *layout, kind))
    for members, relation in _rust.find_aliases(views):
        yield [positions[member] for member in members], relation


def _find_same_objects(
    tensors: Sequence[torch.Tensor], positions: Sequence[int]
) -> Iterator[tuple[list[int], Relation]]:
    """Group by identity what has no address, of the tensors at `positions`."""
    same: dict[int, list[int]] = {}
    for position in positions:
        tensor = tensors[position]
        if not tensor.is_meta and tensor.numel():
            same.setdefault(id(tensor), []).append(position)
    for members in same.values():
        if len(members) > 1:
            yield members, "identical"
