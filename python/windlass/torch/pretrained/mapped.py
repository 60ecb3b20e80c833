"""Weights that look into the files, where they fit; the rest is read.

`memory="mapped"` has that wherever it can be done, `"auto"` where it pays and is safe.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import Parameter

from windlass.errors import NotEnoughMemory
from windlass.torch.slots import Slot

if TYPE_CHECKING:
    from windlass.torch.plan import LoadPlan
    from windlass.torch.pretrained.fill_model import FillOptions
    from windlass.torch.sources import Source

logger = logging.getLogger("windlass")

#: With `memory="auto"` less is read. Up to here that takes about a tenth of a second at most, and
#: memory of their own is nothing that anybody has to know about.
AUTO_LEAST_BYTES = 256 << 20

#: With `memory="auto"` smaller weights and buffers are read. A map stays, with all that was
#: written to it, as long as one tensor looks into it: counters that are kept when weights are cast
#: should not.
AUTO_LEAST_WEIGHT_BYTES = 64 << 10

#: Who holds a storage that one tensor has to itself: the tensor, and the object that asks.
_HOLDERS = 2


def map_weights(plan: LoadPlan, source: Source, options: FillOptions) -> LoadPlan:
    """Let weights look into private maps of the files instead of memory of their own.

    They stay the objects that they are, so what is tied stays tied. Weights of another dtype or
    device than the file's, with strides, whose memory others look into, or that begin at no
    multiple of their element size are left alone.

    Args:
        plan: what goes where.
        source: the checkpoint; only of safetensors anything is mapped.
        options: `memory` decides whether any are mapped, `prefetch` how many bytes of them are
            read ahead in the background.

    Returns:
        The plan of what is left to be read.

    Raises:
        NotEnoughMemory: no room for the maps, with `memory="mapped"`.
    """
    if options.memory == "owned":
        return plan
    mapped, reason = _choose(plan, source, options)
    try:
        views = [source.tensor(slot.name) for slot in mapped]
    except NotEnoughMemory as error:
        if options.memory == "mapped":
            raise
        mapped, views, reason = [], [], str(error)
        source.unmap()
    if options.memory == "auto":
        way = f"{len(mapped)} weights look into the files" if mapped else "weights are read"
        logger.debug("`%s`: %s: %s", source.path, way, reason)
    if not mapped:
        return plan
    for slot, view in zip(mapped, views, strict=True):
        slot.tensor.data = view
    names = {slot.name for slot in mapped}
    if options.prefetch:
        source.prefetch(names, options.prefetch)
    left = [slot for slot in plan.match.present if slot.name not in names]
    return plan._replace(match=plan.match._replace(present=left))


def _choose(plan: LoadPlan, source: Source, options: FillOptions) -> tuple[list[Slot], str]:
    """Return the weights that are to be mapped, and why these, or why none."""
    if options.memory == "mapped":
        return _find_mappable(plan, source), "asked for"
    if (options.io, options.cache) != ("auto", "keep"):
        return [], "io or cache is given"
    if plan.nbytes < AUTO_LEAST_BYTES:
        return [], f"{plan.nbytes} bytes are fewer than {AUTO_LEAST_BYTES}"
    mappable = [
        slot
        for slot in _find_mappable(plan, source)
        if source.nbytes(slot.name) >= AUTO_LEAST_WEIGHT_BYTES
    ]
    nbytes = sum(source.nbytes(slot.name) for slot in mappable)
    if nbytes < AUTO_LEAST_BYTES:
        return [], f"{nbytes} bytes could look into the files, fewer than {AUTO_LEAST_BYTES}"
    kinds = source.file_systems(slot.name for slot in mappable)
    unsafe = [kind for kind, keeps_maps in kinds.items() if not keeps_maps]
    if unsafe:
        return [], f"they are on {unsafe[0]}, which may take away what is mapped"
    return mappable, f"{nbytes} bytes on {' and '.join(kinds)}"


def _find_mappable(plan: LoadPlan, source: Source) -> list[Slot]:
    """Return the weights for which a view of the file can stand."""
    entangled = _entangled(plan)
    return [
        slot
        for slot in plan.match.present
        if source.is_mappable(slot.name)
        and slot.name not in entangled
        and _fits(slot.tensor, *source.layout(slot.name))
    ]


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
