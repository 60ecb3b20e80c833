"""A checkpoint of any size: the names and shapes of a Llama, random bfloat16 weights, shards."""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
import windlass
from terminal import bar, bytes_text, say
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

Shape = tuple[int, ...]

ITEM_BYTES = 2
HIDDEN, INTERMEDIATE, KEY_VALUE = 2048, 5632, 256  # TinyLlama-1.1B's.
USUAL_VOCABULARY = 32_000
LAYER_SHAPES: dict[str, Shape] = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
LAYER_BYTES = ITEM_BYTES * sum(map(prod, LAYER_SHAPES.values()))
ROW_BYTES = ITEM_BYTES * HIDDEN
MAX_SHARD_BYTES = 500 * 10**6  # One shard at a time is in memory.
LEAST_SHARDS = 4
SEED = 20_240_601
UNFILLED = 7.0  # No checkpoint holds this value, so that a parameter nobody filled is seen.

# The mask and the bit that keep each random bfloat16 finite, normal and below 2.
FINITE_MASK, FINITE_BIT = np.uint64(0xBFFF_BFFF_BFFF_BFFF), np.uint64(0x2000_2000_2000_2000)
WORD_MASK = 2**64 - 1


def layout(num_bytes: int) -> dict[str, Shape]:
    """Return names and shapes that take `num_bytes`, at most a row of each embedding less."""
    usual_embeddings = 2 * USUAL_VOCABULARY * ROW_BYTES
    layers = max(1, (num_bytes - usual_embeddings) // LAYER_BYTES)
    vocabulary = (num_bytes - layers * LAYER_BYTES - ROW_BYTES) // (2 * ROW_BYTES)
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for layer in range(layers):
        for name, shape in LAYER_SHAPES.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}


def bytes_of(shapes: dict[str, Shape]) -> int:
    """Return the bytes of all tensors together."""
    return ITEM_BYTES * sum(map(prod, shapes.values()))


def cut(shapes: dict[str, Shape], max_bytes: int) -> list[list[str]]:
    """Cut the names into shards, greedily and in order, as the hub's splitter does."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, shape in shapes.items():
        if shards[-1] and used + ITEM_BYTES * prod(shape) > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += ITEM_BYTES * prod(shape)
    return shards


def write_checkpoint(num_bytes: int, folder: Path) -> int:
    """Write shards and index, one shard in memory at a time; return the sum of all words."""
    folder.mkdir()
    shapes = layout(num_bytes)
    shards = cut(shapes, min(MAX_SHARD_BYTES, num_bytes // LEAST_SHARDS))
    random = np.random.Generator(np.random.SFC64(SEED))
    weight_map: dict[str, str] = {}
    checksum = 0
    with bar(num_bytes, "generating", unit="B") as progress:
        for number, names in enumerate(shards, start=1):
            file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            tensors = {}
            for name in names:
                tensors[name] = random_tensor(random, shapes[name])
                progress.update(tensors[name].nbytes)
            checksum += sum_of_words(tensors)
            write_shard(tensors, folder / file_name)
            weight_map |= dict.fromkeys(names, file_name)
    total = bytes_of(shapes)
    write_index(weight_map, total, folder)
    say(f"{len(shapes)} tensors, {bytes_text(total)} in {len(shards)} shards")
    return checksum & WORD_MASK


def random_tensor(random: np.random.Generator, shape: Shape) -> torch.Tensor:
    """Return random bits of which every item is a finite bfloat16."""
    words = random.integers(0, 2**64, size=prod(shape) * ITEM_BYTES // 8, dtype=np.uint64)
    words &= FINITE_MASK
    words |= FINITE_BIT
    return torch.from_numpy(words.view(np.int16)).view(torch.bfloat16).reshape(shape)


def write_shard(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write one file and wait for the disk, so that no run is timed while it is still busy."""
    windlass.save_file(tensors, path, metadata={"format": "pt"}, durable=True)


def write_index(weight_map: dict[str, str], total: int, folder: Path) -> None:
    """Write the index that lists each tensor's shard."""
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def sum_of_words(tensors: dict[str, torch.Tensor]) -> int:
    """Sum all bytes as 64-bit words, modulo 2**64: it touches every byte, in one thread."""
    total = 0
    for tensor in tensors.values():
        total += int(tensor.detach().reshape(-1).view(torch.int64).numpy().sum())
    return total & WORD_MASK


def build_model(shapes: dict[str, Shape]) -> nn.Module:
    """Return a module tree with one bfloat16 parameter for each name, its memory written."""
    root = nn.Module()
    for name, shape in shapes.items():
        value = torch.full(shape, UNFILLED, dtype=torch.bfloat16)
        path, _, leaf = name.rpartition(".")
        module_at(root, path).register_parameter(leaf, nn.Parameter(value))
    return root


def module_at(root: nn.Module, path: str) -> nn.Module:
    """Return the module at the dotted `path`, made with its ancestors where it is new."""
    module = root
    for part in path.split("."):
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module
