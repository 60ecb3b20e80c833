"""`memory="mapped"`: weights that look into the files, where they fit; the rest is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import Parameter

from windlass.torch.slots import Slot

if TYPE_CHECKING:
    from windlass.torch.plan import LoadPlan
    from windlass.torch.sources import Source

#: Who holds a storage that one tensor has to itself: the tensor, and the object that asks.
_HOLDERS = 2


def map_weights(plan: LoadPlan, source: Source, prefetch: int) -> LoadPlan:
    """Let weights look into private maps of the files instead of memory of their own.

    They stay the objects that they are, so what is tied stays tied. Weights of another dtype or
    device than the file's, with strides, or whose memory others look into, are left alone.

    Args:
        plan: what goes where.
        source: the checkpoint; only of safetensors anything is mapped.
        prefetch: bytes that are read ahead in the background.

    Returns:
        The plan of what is left to be read.
    """
    if not source.is_mappable:
        return plan
    entangled = _entangled(plan)
    mapped: list[Slot] = []
    left: list[Slot] = []
    for slot in plan.match.present:
        fits = slot.name not in entangled and _fits(slot.tensor, *source.layout(slot.name))
        (mapped if fits else left).append(slot)
    for slot in mapped:
        slot.tensor.data = source.tensor(slot.name)
    if mapped and prefetch:
        source.prefetch([slot.name for slot in mapped], prefetch)
    return plan._replace(match=plan.match._replace(present=left))


def _entangled(plan: LoadPlan) -> set[str]:
    """Return names that share memory with others, unless all are one tensor with one value."""
    tensors = {slot.name: slot.tensor for slot in plan.match.entries if isinstance(slot, Slot)}
    present = {slot.name for slot in plan.match.present}
    return {
        name
        for group in plan.ties.groups
        if len({id(tensors.get(name)) for name in group}) > 1 or len(present & set(group)) > 1
        for name in group
    }


def _fits(tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
    """Whether a view of the file can stand for a tensor, which nobody else looks into."""
    return (
        type(tensor) in (Parameter, torch.Tensor)
        and tensor.device.type == "cpu"
        and tensor.dtype == dtype
        and tensor.shape == shape
        and tensor.is_contiguous()
        and torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) == _HOLDERS
    )
