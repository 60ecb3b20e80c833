"""Values ↔ JSON: what a case or an answer may be made of, tensors, dtypes and tuples among it."""

from __future__ import annotations

import base64
from typing import Any

import torch


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it.

    Raises:
        TypeError: it is of a kind that is not told apart here.
    """
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, torch.Tensor):
        return {"__tensor__": _tensor_to_json(value)}
    if isinstance(value, torch.dtype | torch.device):
        return {f"__{type(value).__name__}__": str(value).removeprefix("torch.")}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, tuple | set | frozenset):
        kind, items = (
            ("tuple", value) if isinstance(value, tuple) else ("set", sorted(value, key=repr))
        )
        return {f"__{kind}__": [to_json(item) for item in items]}
    if isinstance(value, dict):
        return {"__dict__": [[to_json(key), to_json(item)] for key, item in value.items()]}
    message = f"no way to send a {type(value).__name__}: {value!r}"
    raise TypeError(message)


def from_json(value: Any) -> Any:
    """Return what `to_json` was given."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    return _DECODERS[kind](content)


def _tensor_to_json(tensor: torch.Tensor) -> list[Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return [dtype, list(tensor.shape), None]
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return [dtype, list(tensor.shape), base64.b64encode(data).decode()]


def _tensor_from_json(content: list[Any]) -> torch.Tensor:
    dtype, shape, data = getattr(torch, content[0]), content[1], content[2]
    if data is None:
        return torch.empty(shape, dtype=dtype, device="meta")
    raw = bytearray(base64.b64decode(data))
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=torch.uint8).view(dtype).reshape(shape).clone()


_DECODERS = {
    "__tensor__": _tensor_from_json,
    "__dtype__": lambda name: getattr(torch, name),
    "__device__": torch.device,
    "__tuple__": lambda items: tuple(from_json(items)),
    "__set__": lambda items: set(from_json(items)),
    "__dict__": lambda items: {from_json(key): from_json(item) for key, item in items},
}
