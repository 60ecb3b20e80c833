"""Header names ↔ torch dtypes, and the shape that torch gives a tensor of the file."""

from __future__ import annotations

import torch

from windlass.errors import UnknownDtype, UnsupportedDtype, UnsupportedTensor

#: Header name → torch dtype. F6_E2M3 and F6_E3M2 have none.
TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "F4": torch.float4_e2m1fn_x2,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}

#: torch dtype → header name.
HEADER_DTYPES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}

#: Elements of the file in one element of torch, along the last dimension.
_PACKED = {"F4": 2}


def torch_layout(
    name: str, dtype: str, shape: tuple[int, ...]
) -> tuple[torch.dtype, tuple[int, ...]]:
    """Return dtype and shape of a tensor as torch has them.

    Raises:
        UnsupportedDtype: torch has no such dtype, or cannot pack the shape.
    """
    torch_dtype = TORCH_DTYPES.get(dtype)
    if torch_dtype is None:
        message = f"tensor `{name}`: torch has no dtype for {dtype}"
        raise UnsupportedDtype(message)
    if dtype not in _PACKED:
        return torch_dtype, shape
    per_element = _PACKED[dtype]
    if not shape or shape[-1] % per_element:
        message = (
            f"tensor `{name}`: torch packs {per_element} {dtype} in one, shape is {list(shape)}"
        )
        raise UnsupportedDtype(message)
    return torch_dtype, (*shape[:-1], shape[-1] // per_element)


def header_shape(name: str, dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a tensor of torch has in a file.

    Raises:
        UnsupportedTensor: torch packs several elements in one, and there is no dimension to tell.
    """
    per_element = _PACKED.get(dtype, 1)
    if per_element == 1:
        return shape
    if not shape:
        message = f"tensor `{name}`: a single element of torch holds {per_element} of {dtype}"
        raise UnsupportedTensor(message)
    return (*shape[:-1], shape[-1] * per_element)


def can_cast(dtype: torch.dtype) -> bool:
    """Whether a save casts tensors of this dtype: floating-point ones, but not packed ones."""
    return dtype.is_floating_point and HEADER_DTYPES.get(dtype) not in _PACKED


def check_cast(dtype: torch.dtype | None) -> None:
    """Raise for a dtype that floating-point tensors cannot be cast to on their way into a file.

    Raises:
        TypeError: it is no dtype of torch.
        ValueError: it is no floating-point dtype of the format, or a packed one.
    """
    if dtype is None:
        return
    if not isinstance(dtype, torch.dtype):
        message = f"dtype should be a torch.dtype, found {dtype!r}"
        raise TypeError(message)
    if dtype not in HEADER_DTYPES or not can_cast(dtype):
        message = f"dtype should be one that floating-point tensors can be cast to, found {dtype}"
        raise ValueError(message)


def dtype_named(name: str) -> torch.dtype:
    """Return the dtype of a name, as torch prints it without `torch.`.

    Raises:
        UnknownDtype: the installed torch has none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        message = f"torch_dtype: torch {torch.__version__} has no dtype {name!r}"
        raise UnknownDtype(message)
    return dtype
