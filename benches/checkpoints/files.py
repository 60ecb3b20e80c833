"""Writes layouts to disk: each made once, from a seed, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.safetensors_format import encode_header, file_order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from checkpoints.layout import Layout, TensorSpec

RECIPE_VERSION = 1  # Raise it when the contents change, and every folder is made anew.
SEED = 20_240_601
BLOCK_WORDS = 4 << 20  # 32 MiB of random words at a time.
INDEX_NAME = "model.safetensors.index.json"

# Per item width: the mask and the bit that keep every value finite, normal and below 2, so that
# equality of values is equality of bytes and no cast meets a NaN.
FINITE_BITS = {2: (np.uint64(0xBFFF * 0x0001_0001_0001_0001), np.uint64(0x2000_2000_2000_2000))}
FINITE_BITS[4] = (np.uint64(0xBFFF_FFFF_BFFF_FFFF), np.uint64(0x2000_0000_2000_0000))


def ensure_checkpoint(layout: Layout, work_folder: Path) -> Path:
    """Return the folder of `layout`, made now if it is not there yet."""
    folder = work_folder / layout.name
    stamp = work_folder / f"{layout.name}.recipe"
    if folder.is_dir() and stamp.is_file() and stamp.read_text() == str(RECIPE_VERSION):
        return folder
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_checkpoint(layout, folder, SEED)
    stamp.write_text(str(RECIPE_VERSION))
    return folder


def write_checkpoint(layout: Layout, folder: Path, seed: int) -> None:
    """Write shards and index into `folder`, and wait until they are on the disk."""
    _write_shards(layout, folder, seed)
    _write_index(layout, folder)


def _write_shards(layout: Layout, folder: Path, seed: int) -> None:
    for number, shard in enumerate(layout.shards):
        path = folder / layout.shard_file_name(number)
        ordered = file_order(shard)
        with path.open("wb") as file:
            file.write(encode_header(ordered))
            data_bytes = sum(tensor.num_bytes for tensor in ordered)
            if layout.sparse:
                file.truncate(file.tell() + data_bytes)
            else:
                for block in _seeded_blocks([seed, number], ordered, data_bytes):
                    file.write(block)
            file.flush()
            os.fdatasync(file.fileno())


def _seeded_blocks(
    seed: list[int], tensors: list[TensorSpec], data_bytes: int
) -> Iterator[memoryview]:
    """Yield the data of a shard: random bits of which every item is a finite float."""
    (item_bytes,) = {tensor.num_bytes // _items(tensor) for tensor in tensors}
    mask, bit = FINITE_BITS[item_bytes]
    generator = np.random.Generator(np.random.SFC64(seed))
    left = data_bytes
    while left:
        words = min(BLOCK_WORDS, -(-left // 8))
        block = generator.integers(0, 2**64, size=words, dtype=np.uint64)
        block &= mask
        block |= bit
        view = block.view(np.uint8).data[: min(left, words * 8)]
        left -= len(view)
        yield view


def _items(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))


def _write_index(layout: Layout, folder: Path, suffix: str = ".safetensors") -> None:
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(layout.shards):
        weight_map |= dict.fromkeys(
            (tensor.name for tensor in shard), layout.shard_file_name(number, suffix)
        )
    total = sum(tensor.num_bytes for tensor in layout.tensors)
    name = INDEX_NAME if suffix == ".safetensors" else "pytorch_model.bin.index.json"
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
    with (folder / name).open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fdatasync(file.fileno())


def ensure_pickle_twin(layout: Layout, folder: Path) -> None:
    """Put the same weights beside the shards as `.bin` files, unless they are there already."""
    import torch  # Only this builder needs it.

    from checkpoints.naive_reader import read_tensors

    if (folder / "pytorch_model.bin.index.json").is_file():
        return
    for number in range(len(layout.shards)):
        shard = dict(read_tensors(folder / layout.shard_file_name(number)))
        with (folder / layout.shard_file_name(number, ".bin")).open("wb") as file:
            torch.save(shard, file)
            file.flush()
            os.fdatasync(file.fileno())
    _write_index(layout, folder, ".bin")
