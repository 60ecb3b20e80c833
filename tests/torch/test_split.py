"""Splitting a state dict: equal to the hub's function, and right where that one is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import huggingface_hub
import pytest
import torch
from builders.states import MANY, VIEWS, limits, state_dicts
from hypothesis import given
from hypothesis import strategies as st
from windlass.split import split_state_dict_into_shards_factory
from windlass.torch import (
    StateDictSplit,
    get_torch_storage_id,
    get_torch_storage_size,
    split_torch_state_dict_into_shards,
)

RULES = ("hub", "shard_checkpoint")
SIZES = ("storage", "logical")
TENSORS = tuple(kind for kind in VIEWS if kind != "text")
WITHOUT_META = tuple(kind for kind in TENSORS if kind != "meta")


def _in_order(split: Any) -> dict[str, Any]:
    """A split as plain data, in which order counts."""
    fields = dataclasses.asdict(split)
    return {name: list(v.items()) if isinstance(v, dict) else v for name, v in fields.items()}


def _float32(*counts: int) -> dict[str, torch.Tensor]:
    return {f"t{number}": torch.zeros(count) for number, count in enumerate(counts)}


def _files(split: StateDictSplit) -> list[list[str]]:
    return list(split.filename_to_tensors.values())


def _counted(state: dict[str, Any], names: list[str]) -> int:
    """Bytes of the storages of some names, each once."""
    storages = {get_torch_storage_id(state[name]) or name: name for name in names}
    return sum(get_torch_storage_size(state[name]) for name in storages.values())


@MANY
@given(state_dicts(), limits())
def test_split_equals_the_hubs(state: dict[str, Any], limit: int | str) -> None:
    expected = huggingface_hub.split_torch_state_dict_into_shards(state, max_shard_size=limit)
    assert _in_order(split_torch_state_dict_into_shards(state, max_shard_size=limit)) == _in_order(
        expected
    )


@given(state_dicts())
def test_default_size_and_pattern_equal_the_hubs(state: dict[str, Any]) -> None:
    expected = huggingface_hub.split_torch_state_dict_into_shards(state)
    assert _in_order(split_torch_state_dict_into_shards(state)) == _in_order(expected)
    named = {"filename_pattern": "a.{suffix}b{suffix}"}
    expected = huggingface_hub.split_torch_state_dict_into_shards(state, **named)
    assert _in_order(split_torch_state_dict_into_shards(state, **named)) == _in_order(expected)


@MANY
@given(
    st.dictionaries(st.text(max_size=3), st.one_of(st.binary(max_size=9), st.text(max_size=2))),
    limits(),
)
def test_factory_equals_the_hubs(state: dict[str, Any], limit: int | str) -> None:
    options: dict[str, Any] = {
        "get_storage_size": len,
        "get_storage_id": lambda value: value[:1] or None,
        "filename_pattern": "a{suffix}",
        "max_shard_size": limit,
    }
    expected = huggingface_hub.split_state_dict_into_shards_factory(state, **options)
    assert _in_order(split_state_dict_into_shards_factory(state, **options)) == _in_order(expected)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rule", RULES)
@given(state_dicts(), limits())
def test_every_name_is_in_exactly_one_file(
    rule: Any, sizes: Any, state: dict[str, Any], limit: int | str
) -> None:
    split = split_torch_state_dict_into_shards(state, max_shard_size=limit, rule=rule, sizes=sizes)
    names = [name for file in _files(split) for name in file]
    assert sorted(names) == sorted(name for name in state if not isinstance(state[name], str))
    assert {name: file for file, names in split.filename_to_tensors.items() for name in names} == (
        split.tensor_to_filename
    )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rule", RULES)
@given(state_dicts(kinds=WITHOUT_META), st.integers(0, 100))
def test_names_of_a_storage_share_a_file(
    rule: Any, sizes: Any, state: dict[str, Any], limit: int
) -> None:
    split = split_torch_state_dict_into_shards(state, max_shard_size=limit, rule=rule, sizes=sizes)
    pairs = {(get_torch_storage_id(state[n]), f) for n, f in split.tensor_to_filename.items()}
    assert len(pairs) == len({storage for storage, _ in pairs})


@pytest.mark.parametrize("rule", RULES)
@given(state_dicts(kinds=TENSORS), st.integers(0, 100))
def test_a_file_over_the_limit_holds_one_storage(
    rule: Any, state: dict[str, Any], limit: int
) -> None:
    split = split_torch_state_dict_into_shards(state, max_shard_size=limit, rule=rule)
    for names in _files(split):
        storages = {get_torch_storage_id(state[name]) or name for name in names}
        assert _counted(state, names) <= limit or len(storages) == 1


@pytest.mark.parametrize("rule", RULES)
@given(state_dicts(kinds=TENSORS), limits())
def test_total_size_counts_each_storage_once(
    rule: Any, state: dict[str, Any], limit: int | str
) -> None:
    split = split_torch_state_dict_into_shards(state, max_shard_size=limit, rule=rule)
    assert split.metadata == {"total_size": _counted(state, list(state))}


@pytest.mark.parametrize("rule", RULES)
@given(state_dicts(kinds=("itself", "parameter", "transposed", "flat", "copy")), limits())
def test_logical_sizes_are_those_of_storages_where_nothing_is_part_of_one(
    rule: Any, state: dict[str, Any], limit: int | str
) -> None:
    options: dict[str, Any] = {"max_shard_size": limit, "rule": rule}
    expected = split_torch_state_dict_into_shards(state, **options)
    assert split_torch_state_dict_into_shards(state, sizes="logical", **options) == expected


def test_logical_size_of_a_view_is_its_own() -> None:
    state = {"part": torch.zeros(1000)[:3]}
    assert split_torch_state_dict_into_shards(state).metadata == {"total_size": 4000}
    split = split_torch_state_dict_into_shards(state, sizes="logical")
    assert split.metadata == {"total_size": 12}


def test_logical_size_of_several_views_counts_each_piece_of_memory_once() -> None:
    base = torch.zeros(4, 4)
    views = [base[:2], base[2:], base[:2].view(-1), base[:2].t(), base[:, :1], base[:1], base[:0]]
    state = {f"v{number}": view for number, view in enumerate(views)}
    split = split_torch_state_dict_into_shards(state, sizes="logical")
    assert split.metadata == {"total_size": 32 + 32 + 16 + 16}


def test_files_follow_the_rule_where_a_tensor_is_too_large() -> None:
    state = _float32(2, 30, 2)
    hub = split_torch_state_dict_into_shards(state, max_shard_size=40)
    assert _files(hub) == [["t1"], ["t0", "t2"]]
    in_order = split_torch_state_dict_into_shards(state, max_shard_size=40, rule="shard_checkpoint")
    assert _files(in_order) == [["t0"], ["t1"], ["t2"]]


def test_shards_are_numbered_and_a_single_file_is_not() -> None:
    split = split_torch_state_dict_into_shards(_float32(1, 1), max_shard_size=4)
    assert split.is_sharded
    assert list(split.filename_to_tensors) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    single = split_torch_state_dict_into_shards(_float32(1, 1))
    assert (single.is_sharded, list(single.filename_to_tensors)) == (False, ["model.safetensors"])


@pytest.mark.parametrize("rule", RULES)
def test_nothing_gives_no_file(rule: Any) -> None:
    for state in ({}, {"text": "4bit"}):
        split = split_torch_state_dict_into_shards(state, rule=rule)
        assert split == StateDictSplit({"total_size": 0}, {}, {})
        assert not split.is_sharded


@pytest.mark.parametrize(
    "pattern", ["", "m.safetensors", "{}", "{other}{suffix}", "{", "{suffix.a}"]
)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_pattern_that_tells_no_shards_apart_is_refused(pattern: str, count: int) -> None:
    state = _float32(*[1] * count)
    with pytest.raises(ValueError, match=r"the field \{suffix\} and no other"):
        split_torch_state_dict_into_shards(state, filename_pattern=pattern, max_shard_size=4)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match='rule should be "hub" or "shard_checkpoint", found "x"'):
        split_torch_state_dict_into_shards({}, rule="x")
    with pytest.raises(ValueError, match="sizes should be one of storage, logical, found 'x'"):
        split_torch_state_dict_into_shards({}, sizes="x")


def test_limit_beyond_64_bits_is_no_limit() -> None:
    split = split_torch_state_dict_into_shards(_float32(1, 1), max_shard_size=2**70)
    assert _files(split) == [["t0", "t1"]]


@pytest.mark.parametrize(
    ("value", "error"),
    [(7, TypeError), (None, TypeError), (torch.eye(2).to_sparse(), NotImplementedError)],
    ids=["int", "none", "sparse"],
)
def test_value_without_a_storage_is_named(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        split_torch_state_dict_into_shards({"h.0.w": value})
    assert caught.value.__notes__ == ["while measuring `h.0.w` of the state dict"]


@pytest.mark.parametrize(
    ("size", "error"), [(-1, ValueError), (2**64, ValueError), (1.5, TypeError)]
)
def test_size_that_is_none_is_refused(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        split_state_dict_into_shards_factory(
            {"a": b""}, get_storage_size=lambda _: size, filename_pattern="a{suffix}"
        )
