"""Names of a model against names of a checkpoint. Pure: nothing is read and nothing changes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.parameter import Parameter

from windlass.errors import (
    IncompatibleKeys,
    IndexMismatch,
    MetaParameter,
    UnsupportedParameter,
)
from windlass.torch.slots import Hooked, Slot
from windlass.torch.spans import PLAIN
from windlass.torch.tensors import has_its_memory

if TYPE_CHECKING:
    from windlass.torch.sources import NameRanges, Source


class Mismatch(NamedTuple):
    """A tensor whose shape differs."""

    name: str
    checkpoint_shape: tuple[int, ...]
    model_shape: tuple[int, ...]


class Match(NamedTuple):
    """What goes where, in model order; `unexpected` in index order.

    Attributes:
        entries: all places and hooked modules.
        present: places that the checkpoint fills.
        absent: places that it does not name.
        hooked: modules that load themselves.
        unexpected: names that no place and no hooked module takes.
        mismatched: places whose shape differs from the checkpoint's.
    """

    entries: list[Slot | Hooked]
    present: list[Slot]
    absent: list[Slot]
    hooked: list[Hooked]
    unexpected: list[str]
    mismatched: list[Mismatch]


def match_names(entries: list[Slot | Hooked], source: Source, ranges: NameRanges) -> Match:
    """Pair the places of a model with the tensors of a checkpoint."""
    match = Match(entries, [], [], [], [], [])
    left = dict(source.positions)
    for entry in entries:
        if isinstance(entry, Hooked):
            match.hooked.append(entry)
            for name in ranges.below(entry.prefix):
                left.pop(name, None)
        elif entry.name in source.positions:
            match.present.append(entry)
            left.pop(entry.name, None)
            match.mismatched.extend(_mismatch(entry, source))
        else:
            match.absent.append(entry)
    match.unexpected.extend(left)
    return match


def _mismatch(slot: Slot, source: Source) -> list[Mismatch]:
    found, expected = source.layout(slot.name).shape, slot.tensor.shape
    # Before torch 0.4 scalars were saved with one dimension; torch still takes them.
    if found == expected or (found == (1,) and not expected):
        return []
    return [Mismatch(slot.name, found, tuple(expected))]


def refuse_unlisted(unlisted: list[tuple[str, str]]) -> None:
    """Raise `IndexMismatch` if shards hold tensors that the index does not list."""
    if unlisted:
        places = ", ".join(f"`{name}` in `{shard}`" for name, shard in unlisted)
        message = f"tensors that the index does not list: {places}"
        raise IndexMismatch(message)


def refuse_incompatible(
    model: torch.nn.Module,
    missing: list[str],
    unexpected: list[str],
    mismatched: list[Mismatch],
) -> None:
    """Raise `IncompatibleKeys`, in the words of transformers and torch, if there is anything."""
    if not (missing or unexpected or mismatched):
        return
    message = f"Error(s) in loading state_dict for {type(model).__name__}"
    for title, names in (("Missing", missing), ("Unexpected", unexpected)):
        if names:
            message += f"\n{title} key(s): " + ",".join(f'"{name}"' for name in names) + "."
    for name, found, expected in mismatched:
        message += (
            f"\nsize mismatch for {name}: copying a param with shape torch.Size({list(found)}) "
            f"from checkpoint, the shape in current model is torch.Size({list(expected)})."
        )
    raise IncompatibleKeys(message, missing, unexpected, [(*one,) for one in mismatched])


def refuse_unfillable(slots: list[Slot], source: Source) -> None:
    """Raise if memory of a place would be filled wrongly, or is not there.

    Raises:
        MetaParameter: a place is on the meta device.
        UnsupportedParameter: a place is a tensor subclass, not strided, expanded, or an inference
            tensor outside inference mode; or torch's `copy_` cannot cast to its dtype.
    """
    refuse_foreign(slots)
    castable: set[tuple[torch.dtype, torch.dtype, torch.device]] = set()
    for slot in slots:
        refuse_unwritable(slot.name, slot.tensor)
        cast = (source.layout(slot.name).dtype, slot.tensor.dtype, slot.tensor.device)
        if cast not in castable:
            _refuse_cast(slot.name, *cast)
            castable.add(cast)


def refuse_foreign(slots: list[Slot]) -> None:
    """Raise `UnsupportedParameter` for tensors whose bytes only their own code understands."""
    for slot in slots:
        reason = _foreign(slot.tensor)
        if reason:
            message = f"`{slot.name}` {reason}"
            raise UnsupportedParameter(message)


def _refuse_cast(
    name: str, found: torch.dtype, expected: torch.dtype, device: torch.device
) -> None:
    """Raise `UnsupportedParameter` if torch cannot copy one dtype to the other."""
    if found == expected:
        return
    with warnings.catch_warnings(action="ignore"):  # It warns again where it really casts.
        try:
            torch.empty(1, dtype=expected, device=device).copy_(
                torch.zeros(1, dtype=found, device="cpu")
            )
        except (NotImplementedError, RuntimeError, TypeError) as error:
            message = f"`{name}`: torch cannot cast {found} of the checkpoint to {expected}"
            raise UnsupportedParameter(message) from error


def refuse_unwritable(name: str, tensor: torch.Tensor) -> None:
    """Raise for a tensor that torch itself would fail to fill, or pretend to.

    Raises:
        MetaParameter: it is on the meta device.
        UnsupportedParameter: it is expanded, without its storage, or an inference tensor outside
            inference mode.
    """
    if tensor.is_meta:
        _refuse_meta(name)
    reason = _unwritable(tensor)
    if reason:
        message = f"`{name}` {reason}"
        raise UnsupportedParameter(message)


def _refuse_meta(name: str) -> None:
    """Raise `MetaParameter`."""
    message = (
        f"`{name}` is on the meta device and has no memory to fill: pass assign=True to put the "
        'loaded tensors in its place, or call model.to_empty(device="cpu") first'
    )
    raise MetaParameter(message)


def _foreign(tensor: torch.Tensor) -> str | None:
    if type(tensor) is not Parameter and type(tensor) is not torch.Tensor:
        return (
            f"is a {type(tensor).__module__}.{type(tensor).__qualname__}, whose memory only its "
            "own code knows: load it with model.load_state_dict(windlass.load_file(...))"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else tensor.layout
        return f"is {kind}, not a plain strided tensor"
    return None


def _unwritable(tensor: torch.Tensor) -> str | None:
    if not tensor.is_contiguous() and _is_expanded(tensor):
        return "is an expanded view: several of its elements are one in memory"
    if type(tensor) in PLAIN and not has_its_memory(tensor):
        return "has no memory for all of its elements: its storage was freed, or made smaller"
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "is an inference tensor, which only changes under torch.inference_mode()"
    return None


def _is_expanded(tensor: torch.Tensor) -> bool:
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return any(length > 1 and stride == 0 for length, stride in steps)
