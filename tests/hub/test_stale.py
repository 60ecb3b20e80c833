"""What a new checkpoint replaces, by names alone."""

from __future__ import annotations

import pytest
from windlass.hub.stale import find_stale

SHARD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("there", "new", "stale"),
    [
        ("model.safetensors", SHARD, True),
        ("model.safetensors.index.json", "model.safetensors", True),
        ("model-00003-of-00003.safetensors", SHARD, True),
        (SHARD, SHARD, False),
        ("pytorch_model.bin", "model.safetensors", False),
        ("pytorch_model-00001-of-00002.bin", "pytorch_model.bin", True),
        ("model.fp16.safetensors", "model.safetensors", False),
        ("model.fp16-00001-of-00002.safetensors", "model.fp16.safetensors", True),
        ("model.safetensors.index.fp16.json", "model.fp16.safetensors", True),
        ("model.fp16.safetensors.index.json", "model.fp16.safetensors", True),
        ("adapter_model.safetensors", "model.safetensors", False),
        ("unet/model.safetensors", "model.safetensors", False),
        ("config.json", "model.safetensors", False),
        ("README.md", "config.json", False),
        ("model.safetensors", "config.json", False),
    ],
)
def test_files_of_the_same_family_are_stale(there: str, new: str, *, stale: bool) -> None:
    assert find_stale([there], [new]) == ([there] if stale else [])
