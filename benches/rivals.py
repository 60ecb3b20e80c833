"""The competitors that are not installed with windlass, each in its best documented CPU setting.

They take part where tensors are read into fresh memory. Where a rival has a choice that decides
much, both sides of it take part.
"""

from __future__ import annotations

from definitions import Competitor

FASTSAFETENSORS = (
    Competitor(
        "fastsafetensors",
        "fastsafetensors, direct",
        "fastsafetensors_loader",
        setting="nogds=True, 16 threads and O_DIRECT, its defaults for a local disk",
        package="fastsafetensors",
    ),
    Competitor(
        "fastsafetensors-buffered",
        "fastsafetensors, buffered",
        "fastsafetensors_loader",
        setting="the same with FASTSAFETENSORS_ODIRECT=0",
        environment=(("FASTSAFETENSORS_ODIRECT", "0"),),
        package="fastsafetensors",
    ),
)
RUNAI = (
    Competitor(
        "runai",
        "runai-model-streamer",
        "runai_loader",
        setting="one SafetensorsStreamer, owned=True, its default io_uring_direct, 64 reads deep",
        package="runai-model-streamer",
    ),
    Competitor(
        "runai-buffered",
        "runai-model-streamer, buffered",
        "runai_loader",
        setting="the same with RUNAI_STREAMER_FS_STRATEGY=sync_buffered, 16 threads",
        environment=(("RUNAI_STREAMER_FS_STRATEGY", "sync_buffered"),),
        package="runai-model-streamer",
    ),
)
TENSORIZER = Competitor(
    "tensorizer",
    "tensorizer (converted)",
    "tensorizer_loader",
    setting='TensorDeserializer(path, device="cpu"), its dynamic number of readers (8 for a file)',
    package="tensorizer",
    suffix=".tensors",
)
FLASHPACK = Competitor(
    "flashpack",
    "flashpack (converted)",
    "flashpack_loader",
    setting="FLASHPACK_CPU_PARALLEL_READ=1, 16 threads (its default)",
    environment=(("FLASHPACK_CPU_PARALLEL_READ", "1"),),
    package="flashpack",
    suffix=".flashpack",
)
RIVALS = (*FASTSAFETENSORS, *RUNAI, TENSORIZER, FLASHPACK)
