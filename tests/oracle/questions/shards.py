"""Questions about checkpoints cut into shards."""

from __future__ import annotations

from typing import Any

from builders.plain_states import make_state
from transformers.modeling_utils import shard_checkpoint


def cut(case: list[Any]) -> list[Any]:
    description, limit = case
    shards, index = shard_checkpoint(make_state(description), limit, "w.safetensors")
    names = [[file, list(shard)] for file, shard in shards.items()]
    return [names, index and [index["metadata"]["total_size"], list(index["weight_map"].items())]]
