"""Tensor → its storage: what identifies it, and how large it is."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

#: An address, or for a subclass that wraps tensors, those of what it wraps.
Address: TypeAlias = int | tuple[Any, ...]

#: Device, address and bytes of a storage.
StorageId: TypeAlias = tuple[torch.device, Address, int]

#: Types that are known to be no subclass: most tensors, and the tests for the rest are slow.
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def get_torch_storage_id(tensor: torch.Tensor) -> StorageId | None:
    """Return what is equal for two tensors if they share a storage, as the hub's function does.

    It is true while the tensors live. Meta tensors have no storage to compare: None.

    Raises:
        TypeError: not a tensor.
        NotImplementedError: a tensor without a storage (a sparse one).

    Example:
        >>> weight = torch.zeros(4, 3)
        >>> get_torch_storage_id(weight) == get_torch_storage_id(weight[1:])
        True
        >>> get_torch_storage_id(weight) == get_torch_storage_id(weight.clone())
        False
    """
    if type(tensor) in _PLAIN and not tensor.is_meta:
        storage = tensor.untyped_storage()
        return tensor.device, storage.data_ptr(), storage.nbytes()
    _check_tensor(tensor)
    return None if tensor.is_meta else id_tensor_storage(tensor)


def get_torch_storage_size(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's whole storage, as the hub's function does.

    A view counts as much as what it looks into. A subclass that wraps tensors counts as all that
    it wraps, a DTensor as the whole tensor, of which this process has a part.

    Raises:
        TypeError: not a tensor.
        NotImplementedError: a tensor without a storage (a sparse one).

    Example:
        >>> get_torch_storage_size(torch.zeros(4, 3)[1:])
        48
    """
    if type(tensor) in _PLAIN:
        return tensor.untyped_storage().nbytes()
    _check_tensor(tensor)
    if parts := wrapped_tensors(tensor):
        return sum(map(get_torch_storage_size, parts))
    return tensor.nbytes if _is_dtensor(tensor) else tensor.untyped_storage().nbytes()


def id_tensor_storage(tensor: torch.Tensor) -> StorageId:
    """Return device, address and bytes of a tensor's storage, as transformers 4.46 does.

    All meta tensors of a size have the same: their address is 0. So have all tensors without
    elements on a device.

    Raises:
        TypeError: not a tensor.
        NotImplementedError: a tensor without a storage (a sparse one).

    Example:
        >>> id_tensor_storage(torch.zeros(3, device="meta"))
        (device(type='meta'), 0, 12)
    """
    _check_tensor(tensor)
    return tensor.device, _address(tensor), get_torch_storage_size(tensor)


def wrapped_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return what a subclass wraps; nothing for a plain tensor and a DTensor."""
    if type(tensor) in _PLAIN or _is_dtensor(tensor) or not is_traceable_wrapper_subclass(tensor):
        return []
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a DTensor that is in this process; any other tensor as it is."""
    return tensor.to_local() if _is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def _address(tensor: torch.Tensor) -> Address:
    if parts := wrapped_tensors(tensor):
        return tuple(map(_address, parts))
    return local_tensor(tensor).untyped_storage().data_ptr()


def _is_dtensor(tensor: torch.Tensor) -> bool:
    """Without importing DTensor, which takes half a second: where there is one, it is imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def _check_tensor(tensor: object) -> None:
    if not isinstance(tensor, torch.Tensor):
        message = f"expected a torch.Tensor, found {type(tensor).__name__}"
        raise TypeError(message)
