"""Ten thousand state dicts, cut by both rules: as the hub and transformers 4.46 cut them."""

from __future__ import annotations

import dataclasses
from random import Random
from typing import TYPE_CHECKING, Any

import huggingface_hub
from builders.plain_states import describe, make_state
from windlass.modeling_utils import shard_checkpoint
from windlass.torch import split_torch_state_dict_into_shards

if TYPE_CHECKING:
    from oracle.client import Oracle

_random = Random(20_000)
CASES = [[describe(_random), _random.randrange(101)] for _ in range(10_000)]


def test_splits_are_those_of_the_hub() -> None:
    for description, limit in CASES:
        state = make_state(description)
        ours = split_torch_state_dict_into_shards(state, max_shard_size=limit)
        expected = huggingface_hub.split_torch_state_dict_into_shards(state, max_shard_size=limit)
        assert dataclasses.asdict(ours) == dataclasses.asdict(expected), (description, limit)


def test_shards_are_those_of_transformers(oracle: Oracle) -> None:
    answers = oracle.ask("shards.cut", CASES)
    for (description, limit), answer in zip(CASES, answers, strict=True):
        assert _cut(description, limit) == answer.value, (description, limit)


def _cut(description: Any, limit: int) -> list[Any]:
    shards, index = shard_checkpoint(make_state(description), limit, "w.safetensors")
    names = [[file, list(shard)] for file, shard in shards.items()]
    return [names, index and [index["metadata"]["total_size"], list(index["weight_map"].items())]]
