"""Bits of tensors and models: the only equality these tests use, so that NaN payloads count."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def bits(tensor: torch.Tensor) -> bytes:
    """Return the element bytes of a dense tensor in C order."""
    plain = tensor.detach().as_subclass(torch.Tensor).cpu()
    plain = plain.clone(memory_format=torch.contiguous_format)  # Also resets odd strides of size 1.
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether dtype, shape and every bit agree."""
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def storage_bits(tensor: torch.Tensor) -> bytes:
    """Return every byte of the storage, also those between the elements of a strided tensor."""
    whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage().cpu())
    return whole.numpy().tobytes()


def model_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all parameters and buffers under all their names, non-persistent buffers included."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _contents(tensor: torch.Tensor) -> bytes:
    if hasattr(tensor, "to_local"):
        return storage_bits(tensor.to_local())
    if tensor.is_meta or torch.nn.parameter.is_lazy(tensor):
        return b"no memory"
    if tensor.layout == torch.sparse_coo:
        return bits(tensor._indices()) + bits(tensor._values())
    plain = tensor.detach()
    return storage_bits(plain.int_repr() if plain.is_quantized else plain)


def _shape(tensor: torch.Tensor) -> tuple[int, ...] | None:
    return None if torch.nn.parameter.is_lazy(tensor) else tuple(tensor.shape)


def contents(model: torch.nn.Module) -> dict[str, tuple[object, ...]]:
    """Return what two models must agree in: dtypes, shapes, `requires_grad` and storage bytes."""
    return {
        name: (tensor.dtype, _shape(tensor), tensor.requires_grad, _contents(tensor))
        for name, tensor in model_tensors(model)
    }


def fingerprint(model: torch.nn.Module) -> str:
    """Return a hash of the contents of a model and of which objects and memory hold them."""
    digest = hashlib.sha256(repr(contents(model)).encode())
    for _, tensor in model_tensors(model):
        is_placed = not tensor.is_meta and _shape(tensor) is not None and not tensor.is_sparse
        address = tensor.data_ptr() if is_placed and not hasattr(tensor, "to_local") else 0
        digest.update(repr((id(tensor), address, tensor.device)).encode())
    return digest.hexdigest()


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return a contiguous tensor of random bits (of random truth values for bool)."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel() * dtype.itemsize
    top = 2 if dtype == torch.bool else 256
    flat = torch.randint(0, top, (count,), dtype=torch.uint8, generator=generator)
    return flat.view(dtype).reshape(shape)


def small_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return a contiguous tensor of small whole numbers, which every dtype casts the same way."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, shape, generator=generator).to(dtype)
