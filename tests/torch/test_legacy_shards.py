"""`shard_checkpoint` and its helpers: the rules of transformers 4.46, written down plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders.states import MANY, state_dicts
from hypothesis import given
from hypothesis import strategies as st
from windlass.modeling_utils import (
    convert_file_size_to_int,
    dtype_byte_size,
    id_tensor_storage,
    shard_checkpoint,
)

#: Below a byte: 4.46 takes them for nothing.
ODD_DTYPES = (torch.float4_e2m1fn_x2, torch.int4, torch.uint1, torch.quint4x2)


def naive_shards(state: dict[str, Any], limit: int) -> tuple[list[dict[str, Any]], float]:
    """The rule of 4.46: in order, a storage where it was first seen, the first name counts."""
    shards: list[dict[str, Any]] = [{}]
    total = filled = 0.0
    places: dict[Any, int] = {}
    for name, tensor in state.items():
        if isinstance(tensor, str):
            continue
        storage = id_tensor_storage(tensor)
        if not tensor.is_meta and storage in places:
            shards[places[storage]][name] = tensor
            continue
        size = tensor.numel() * (1 / 8 if tensor.dtype == torch.bool else tensor.element_size())
        if shards[-1] and filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
        total += size
        places[storage] = len(shards) - 1
    return shards, total


def _identities(shards: list[dict[str, Any]]) -> list[list[tuple[str, int]]]:
    return [[(name, id(tensor)) for name, tensor in shard.items()] for shard in shards]


@MANY
@given(state_dicts(), st.integers(0, 100))
def test_shards_equal_the_rule_of_446(state: dict[str, Any], limit: int) -> None:
    expected, total = naive_shards(state, limit)
    shards, index = shard_checkpoint(state, limit, "w.safetensors")
    assert _identities(list(shards.values())) == _identities(expected)
    if len(expected) == 1:
        assert (list(shards), index) == (["w.safetensors"], None)
    else:
        assert index is not None
        assert index["metadata"] == {"total_size": total}
        assert list(index["weight_map"].items()) == [
            (name, file) for file, shard in shards.items() for name in shard
        ]


def test_shard_names_stand_before_the_ending() -> None:
    state = {"a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(shard_checkpoint(state, 4)[0]) == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ]
    assert list(shard_checkpoint(state, 4, "model.fp16.safetensors")[0]) == [
        "model.fp16-00001-of-00002.safetensors",
        "model.fp16-00002-of-00002.safetensors",
    ]


def test_name_that_tells_no_shards_apart_is_refused() -> None:
    state = {"a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(shard_checkpoint(state, 8, "model.pt")[0]) == ["model.pt"]
    with pytest.raises(ValueError, match=r"`\.bin` or `\.safetensors`.*2 shards.*'model\.pt'"):
        shard_checkpoint(state, 4, "model.pt")


def test_nothing_gives_one_empty_file() -> None:
    assert shard_checkpoint({}) == ({"pytorch_model.bin": {}}, None)


def test_bools_are_eight_to_the_byte() -> None:
    state = {"a": torch.zeros(80, dtype=torch.bool), "b": torch.zeros(4, dtype=torch.bool)}
    shards, index = shard_checkpoint(state, 10)
    assert (len(shards), index["metadata"]) == (2, {"total_size": 10.5})
    state["b"] = torch.zeros(8, dtype=torch.bool)
    assert repr(shard_checkpoint(state, 10)[1]["metadata"]) == "{'total_size': 11}"


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.bool, 1 / 8),
        (torch.uint8, 1),
        (torch.float8_e4m3fn, 1),
        (torch.float8_e5m2fnuz, 1),
        (torch.float8_e8m0fnu, 1),
        (torch.bfloat16, 2),
        (torch.float16, 2),
        (torch.int32, 4),
        (torch.float64, 8),
        (torch.complex64, 8),
        (torch.complex128, 16),
        *[(dtype, 1) for dtype in ODD_DTYPES],
    ],
    ids=str,
)
def test_dtype_has_its_size(dtype: torch.dtype, size: float) -> None:
    assert dtype_byte_size(dtype) == size


@pytest.mark.parametrize("found", ["float32", 4, None, torch.zeros(1)])
def test_what_is_no_dtype_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="`dtype` is not a valid dtype"):
        dtype_byte_size(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (17, 17),
        (0, 0),
        ("5GB", 5 * 10**9),
        ("5gb", 625 * 10**6),
        ("5Gb", 625 * 10**6),
        ("5gB", 5 * 10**9),
        ("300MB", 300 * 10**6),
        ("300kb", 37_500),
        ("3Kb", 375),
        ("1kb", 125),
        ("2 MB", 2 * 10**6),
        ("2GiB", 2**31),
        ("2gib", 2**31),
        ("3MIB", 3 * 2**20),
        ("3kib", 3 * 2**10),
    ],
)
def test_size_is_read_as_by_446(text: int | str, expected: int) -> None:
    assert convert_file_size_to_int(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "GB", "1.5GB", "5TB", "5TiB", "5XB", "-1GB", "5 B", "b", "ib"]
)
def test_text_that_is_no_size_for_446_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"KB, MB, GB .*; found"):
        convert_file_size_to_int(text)
