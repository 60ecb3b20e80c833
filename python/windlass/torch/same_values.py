"""Whether values of a checkpoint are those of a place, compared in small parts. Pure."""

from __future__ import annotations

import torch

#: Values are compared in parts of this many bytes.
_COMPARE_BYTES = 2 << 20


def same_values(part: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether values, cast to the dtype of a place, are the bytes of that place.

    A NaN that was cast is any NaN: which one, depends on who has cast it.
    """
    if part.is_contiguous():
        part, values = part.detach().reshape(-1), values.reshape(-1)
    if not part.dim():
        return _same_cast(part, values)
    row_bytes = max(1, part[:1].numel() * part.element_size())
    rows = max(1, _COMPARE_BYTES // row_bytes)
    pairs = zip(torch.split(part, rows), torch.split(values, rows), strict=True)
    return all(_same_cast(a, b) for a, b in pairs)


def _same_cast(place: torch.Tensor, values: torch.Tensor) -> bool:
    cast = values.to(place.dtype)
    if torch.equal(_bytes(place), _bytes(cast)):
        return True
    if values.dtype == place.dtype or not place.dtype.is_floating_point:
        return False
    ours, theirs = place.detach().cpu().double(), cast.double()
    both_nan = ours.isnan() & theirs.isnan()
    return torch.equal(
        _bytes(ours.masked_fill(both_nan, 0)), _bytes(theirs.masked_fill(both_nan, 0))
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    packed = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return packed.reshape(-1).view(torch.uint8)
