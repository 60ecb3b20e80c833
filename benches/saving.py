"""The workloads that save, split and copy state dicts."""

from __future__ import annotations

from definitions import SYNCED, TOUCHED, UNTOUCHED, Competitor, Saving, Workload

MEGABYTE = 10**6
LARGE_SHARDS = 480 * MEGABYTE  # As the layout `tinyllama` is cut: 5 shards.
SMALL_SHARDS = 5 * MEGABYTE
SPLIT_COUNTS = (10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
SPLIT_COUNT = 50_000
HUB_SPLIT_MAX_COUNT = 200_000  # It tries every shard for each tensor: a million take minutes.

WINDLASS = Competitor("windlass", "windlass", "windlass_saver")
SAFETENSORS = Competitor("safetensors", "safetensors, per shard", "safetensors_saver")
CAST_FIRST = Competitor("safetensors", "v.to(bfloat16), safetensors", "safetensors_saver")
HUB = Competitor("hub", "huggingface_hub", "hub_saver")
PICKLE = Competitor("torch-save", "torch.save, per shard", "torch_saver", suffix=".bin")
LIMIT = Competitor("raw-limit", "raw limit", "raw_write")
DIRECT_LIMIT = Competitor(
    "direct-limit",
    "raw limit, direct",
    "raw_write",
    "direct",
    setting="O_DIRECT from huge pages, without a copy",
)
SAVERS = (WINDLASS, SAFETENSORS, HUB, PICKLE, LIMIT)

SNAPSHOTS = (
    Competitor("windlass", "windlass.save_async", "windlass_saver"),
    Competitor("memory-copy", "{k: v.clone()}", "memory_copy"),
)
SPLITTERS = (
    Competitor("windlass", "windlass: aliases and split", "windlass_saver"),
    Competitor("hub", "huggingface_hub: split alone", "hub_saver"),
)


def split_workload(count: int) -> Workload:
    """Return one point of the split's scaling plot; the hub leaves early."""
    return Workload(
        f"split-{count}",
        f"Find aliases of {count:,} tensors and split them into shards of 5 MB",
        "split",
        f"flat-parameters-{count}",
        SPLITTERS if count <= HUB_SPLIT_MAX_COUNT else SPLITTERS[:1],
        states=(TOUCHED,),
        saving=Saving(SMALL_SHARDS),
    )


SAVES = (
    Workload(
        "save-tinyllama",
        "Save TinyLlama-1.1B, 2.2 GB bf16 in 5 shards",
        "save",
        "tinyllama",
        SAVERS,
        states=(SYNCED,),
        saving=Saving(LARGE_SHARDS),
    ),
    Workload(
        "save-tinyllama-durable",
        "Save TinyLlama-1.1B, all of it on the disk",
        "save",
        "tinyllama",
        (*SAVERS, DIRECT_LIMIT),
        states=(SYNCED,),
        saving=Saving(LARGE_SHARDS, durable=True),
    ),
    Workload(
        "resave-tinyllama",
        "Save TinyLlama-1.1B over a checkpoint of the same names",
        "save",
        "tinyllama",
        (WINDLASS, SAFETENSORS, HUB, LIMIT),
        states=(SYNCED,),
        saving=Saving(LARGE_SHARDS, over_existing=True),
    ),
    Workload(
        "save-strided",
        "Save TinyLlama-1.1B, every matrix a transposed view",
        "save",
        "tinyllama",
        (WINDLASS, HUB),
        states=(SYNCED,),
        saving=Saving(LARGE_SHARDS, strided=True),
    ),
    Workload(
        "save-cast",
        "Save TinyLlama-1.1B, float32 in memory, bf16 in the files",
        "save",
        "tinyllama",
        (WINDLASS, CAST_FIRST),
        states=(SYNCED,),
        model_dtype="float32",
        saving=Saving(LARGE_SHARDS, saved_dtype="bfloat16"),
    ),
    Workload(
        "save-async",
        "TinyLlama-1.1B: how long a background save holds up its caller",
        "snapshot",
        "tinyllama",
        SNAPSHOTS,
        states=(TOUCHED, UNTOUCHED),
        saving=Saving(LARGE_SHARDS),
    ),
    Workload(
        "save-50000",
        "Save 50,000 tensors of 1 KiB in shards of 5 MB",
        "save",
        "flat-parameters-50000",
        (WINDLASS, HUB),
        states=(SYNCED,),
        saving=Saving(SMALL_SHARDS),
    ),
    split_workload(SPLIT_COUNT),
)
