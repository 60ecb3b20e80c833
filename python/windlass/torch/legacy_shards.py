"""`shard_checkpoint` and what it counts by, as transformers 4.46 has them and later ones do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from windlass.layout import PICKLE_FILE, shard_suffix
from windlass.sizes import convert_file_size_to_int
from windlass.split import measure, plan_names
from windlass.torch.storages import StorageId, get_torch_storage_id

if TYPE_CHECKING:
    from collections.abc import Mapping

Shards: TypeAlias = dict[str, dict[str, torch.Tensor]]
Index: TypeAlias = dict[str, dict[str, Any]]

_BITS_PER_BYTE = 8


def shard_checkpoint(
    state_dict: Mapping[str, torch.Tensor],
    max_shard_size: int | str = "10GB",
    weights_name: str = PICKLE_FILE,
) -> tuple[Shards, Index | None]:
    """Distribute tensors over files, as transformers 4.46 does.

    Tensors are taken in order and put into one file until the next would make it too large. Those
    that share a storage are together, and the first of them counts, with its own elements (of
    bool, eight to the byte). Texts are left out.

    Args:
        state_dict: tensors by name.
        max_shard_size: largest file, see `windlass.sizes.convert_file_size_to_int`. A tensor that
            is larger has a file to itself.
        weights_name: name of a single file; shards put their number before `.bin` or
            `.safetensors`.

    Returns:
        Tensors by name for each file, and the index; None for a single file.

    Raises:
        ValueError: a size that is none, or a name that shards cannot be told apart by (4.46 keeps
            the last shard only).
        TypeError: `max_shard_size` is neither an int nor a text, or a value is no tensor.
        NotImplementedError: a tensor without a storage (a sparse one).

    Example:
        >>> shards, index = shard_checkpoint(model.state_dict(), max_shard_size="6KB")
        >>> list(shards)
        ['pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin']
        >>> index["metadata"]
        {'total_size': 6672}
    """
    max_bits = convert_file_size_to_int(max_shard_size) * _BITS_PER_BYTE
    names, bits = plan_names(measure(state_dict, _count_bits), max_bits, "shard_checkpoint")
    shards = [{name: state_dict[name] for name in shard} for shard in names]
    if len(shards) <= 1:
        return {weights_name: shards[0] if shards else {}}, None
    files = dict(zip(_name_shards(weights_name, len(shards)), shards, strict=True))
    weight_map = {name: file for file, shard in files.items() for name in shard}
    return files, {"metadata": {"total_size": _in_bytes(bits)}, "weight_map": weight_map}


def dtype_byte_size(dtype: torch.dtype) -> float:
    """Return the bytes of one element, as transformers 4.46 counts them: of bool, 1/8.

    4.46 reads the number off the dtype's name and takes everything below a byte for nothing;
    here dtypes like `torch.float4_e2m1fn_x2` have the byte that torch stores them in.

    Raises:
        ValueError: not a dtype of torch.

    Example:
        >>> dtype_byte_size(torch.float32), dtype_byte_size(torch.bool)
        (4, 0.125)
    """
    if not isinstance(dtype, torch.dtype):
        message = f"`dtype` is not a valid dtype: expected a torch.dtype, found {dtype!r}"
        raise ValueError(message)  # noqa: TRY004  (the class that 4.46 raises)
    return 1 / _BITS_PER_BYTE if dtype is torch.bool else dtype.itemsize


def _count_bits(tensor: torch.Tensor) -> tuple[StorageId | None, int]:
    bits = 1 if tensor.dtype is torch.bool else tensor.itemsize * _BITS_PER_BYTE
    return get_torch_storage_id(tensor), tensor.numel() * bits


def _in_bytes(bits: int) -> float:
    whole, rest = divmod(bits, _BITS_PER_BYTE)
    return bits / _BITS_PER_BYTE if rest else whole


def _name_shards(weights_name: str, count: int) -> list[str]:
    names = [_name_shard(weights_name, shard_suffix(n, count)) for n in range(1, count + 1)]
    if weights_name in names:
        message = (
            f"weights_name should contain `.bin` or `.safetensors`, before which the numbers of "
            f"{count} shards go; found {weights_name!r}"
        )
        raise ValueError(message)
    return names


def _name_shard(weights_name: str, suffix: str) -> str:
    name = weights_name.replace(".bin", f"{suffix}.bin")
    return name.replace(".safetensors", f"{suffix}.safetensors")
