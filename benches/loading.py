"""The workloads that load."""

from __future__ import annotations

from dataclasses import replace

from definitions import COLD, UNCONTROLLED, WARM, Competitor, Workload
from rivals import RIVALS

WINDLASS = Competitor("windlass", "windlass", "windlass_loader")
RULE = Competitor("transformers-rule", "transformers 4.46 rule", "transformers_rule")
HUB = Competitor("hub", "huggingface_hub", "hub_loader")
PICKLE = Competitor("torch-load", "torch.load (.bin, mmap)", "torch_loader", suffix=".bin")
LIMIT = Competitor("raw-limit", "raw limit", "raw_limit", setting="pread through the page cache")
DIRECT_LIMIT = Competitor(
    "direct-limit",
    "raw limit, direct",
    "raw_limit",
    "direct",
    setting="O_DIRECT into huge pages, without a copy",
    states=(COLD,),  # Whatever is cached, it asks the disk.
)
LIMITS = (LIMIT, DIRECT_LIMIT)
WIDEN_LIMIT = Competitor(
    "widen-limit",
    "raw limit, widened",
    "raw_limit",
    "widen",
    setting="pread by 1 MiB, to float32 past the cache, a thread for each processor",
    states=(WARM,),  # So few threads leave a disk idle.
)
FRESH_LIMIT = Competitor(
    "fresh-limit",
    "raw limit, fresh memory",
    "raw_limit",
    "fresh",
    setting="pread through the page cache into new huge pages",
)
MAPPED = Competitor("windlass-mapped", "windlass (mapped)", "windlass_loader", "mapped")
OWNED = Competitor("windlass-owned", "windlass (owned)", "windlass_loader", "owned")
SAFETENSORS = Competitor("safetensors", "safetensors", "safetensors_loader")
INDEX_AND_SAFE_OPEN = Competitor(
    "safetensors", "json index + safe_open + keys", "safetensors_loader"
)
IMPORTS = (
    Competitor("windlass", "import windlass", "import_time", "windlass"),
    Competitor("safetensors", "import safetensors", "import_time", "safetensors"),
)
# One process measures both, call by call in turn, and prints a line for each.
CALLS = (Competitor("windlass", "load_file, 1 KB", "call_overhead"),)

FILLERS = (WINDLASS, RULE, HUB, *LIMITS)
FILE_READERS = (MAPPED, OWNED, SAFETENSORS)
CUTTERS = (
    Competitor("windlass", "windlass.Checkpoint.load", "windlass_loader"),
    Competitor("safetensors", "safe_open, get_slice", "safetensors_loader"),
)
WALKERS = (
    Competitor("windlass", "windlass.Checkpoint.stream", "windlass_loader", setting='budget="4GB"'),
    Competitor("windlass-owned", "windlass.Checkpoint.load", "windlass_loader", "owned"),
    Competitor("safetensors", "safe_open, get_tensor", "safetensors_loader"),
)
FRESH_READERS = (
    Competitor("windlass", "windlass.Checkpoint.load", "windlass_loader"),
    Competitor(
        "windlass-owned",
        "windlass.load_file",
        "windlass_loader",
        "owned",
        setting='memory="owned", file by file',
    ),
    Competitor("safetensors-bytes", "safetensors, load(bytes)", "safetensors_loader", "bytes"),
    Competitor(
        "safetensors-pread",
        "safetensors, pread",
        "safetensors_loader",
        "pread",
        setting='load_file(backend="pread")',
    ),
    *RIVALS,
    *LIMITS,
    FRESH_LIMIT,
)
FORWARDERS = (
    Competitor(
        "windlass",
        "windlass (mapped, prefetch)",
        "windlass_loader",
        "prefetch",
        setting="load_file(prefetch=True)",
    ),
    MAPPED,
    Competitor("windlass-owned", "windlass (owned)", "windlass_loader", setting="Checkpoint.load"),
    SAFETENSORS,
)
PLANNERS = (WINDLASS, INDEX_AND_SAFE_OPEN)


def _minutes_long(competitor: Competitor) -> Competitor:
    """Limit a quadratic reference to one round, warm: there, no disk is what takes its time."""
    return replace(competitor, states=(WARM,), max_rounds=1)


LOADS = (
    Workload(
        "tinyllama",
        "TinyLlama-1.1B, 2.2 GB bf16 in 5 shards",
        "fill",
        "tinyllama",
        (WINDLASS, RULE, HUB, PICKLE, *LIMITS),
    ),
    Workload("mixtral", "Mixtral-like, 2 GB in 995 tensors", "fill", "mixtral", FILLERS),
    Workload(
        "flat-children-50000",
        "50,000 tensors of 1 KiB, 50,000 child modules",
        "fill",
        "flat-children-50000",
        (WINDLASS, _minutes_long(RULE), _minutes_long(HUB)),
    ),
    Workload(
        "flat-parameters-50000",
        "50,000 tensors of 1 KiB, parameters of one module",
        "fill",
        "flat-parameters-50000",
        (WINDLASS, RULE, HUB),
    ),
    Workload(
        "tiny-transformer",
        "6,000 tiny tensors in a transformer",
        "fill",
        "tiny-transformer",
        (WINDLASS, RULE, HUB),
    ),
    Workload(
        "tinyllama-float32",
        "TinyLlama-1.1B, bf16 file into float32 parameters",
        "fill",
        "tinyllama",
        (*FILLERS, WIDEN_LIMIT),
        model_dtype="float32",
    ),
    Workload(
        "tinyllama-dict",
        "TinyLlama-1.1B into a dict, every byte touched",
        "read",
        "tinyllama",
        FILE_READERS,
        baseline="windlass-mapped",
    ),
    Workload(
        "fresh",
        "TinyLlama-1.1B into fresh tensors with memory of their own",
        "fresh",
        "tinyllama",
        FRESH_READERS,
    ),
    Workload(
        "first-forward",
        "TinyLlama-1.1B into a dict, then a first forward pass of 8 tokens",
        "forward",
        "tinyllama",
        FORWARDERS,
    ),
    Workload(
        "tinyllama-columns",
        "TinyLlama-1.1B, the first eighth of the columns of every matrix",
        "columns",
        "tinyllama",
        CUTTERS,
    ),
    Workload(
        "stream",
        "TinyLlama-1.1B tensor by tensor, every byte touched, none kept",
        "walk",
        "tinyllama",
        WALKERS,
    ),
    Workload(
        "llama70b-plan",
        "Open and plan Llama-2-70B: 723 tensors, 30 sparse shards",
        "plan",
        "llama70b",
        PLANNERS,
    ),
    Workload(
        "million-plan",
        "Open and plan 1,000,000 tensors in 200 sparse shards",
        "plan",
        "million",
        PLANNERS,
    ),
    Workload(
        "import",
        "import, above a bare interpreter",
        "import",
        "one-kilobyte",
        IMPORTS,
        states=(UNCONTROLLED,),
    ),
    Workload(
        "call-overhead",
        "load_file of a 1 KB file, in a loop",
        "call",
        "one-kilobyte",
        CALLS,
        states=(UNCONTROLLED,),
    ),
)
