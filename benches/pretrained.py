"""The workloads of `from_pretrained`, against transformers 4.46.3 and 5, and of its import."""

from __future__ import annotations

from definitions import UNCONTROLLED, WARM, Competitor, Workload

#: Where transformers 4.46.3 lives; `make oracle` makes it.
ORACLE_PYTHON = ".venv-oracle/bin/python"

WINDLASS = Competitor("windlass", "windlass", "windlass_pretrained")
WINDLASS_OWNED = Competitor(
    "windlass-owned",
    "windlass, owned",
    "windlass_pretrained",
    "owned",
    'memory="owned"',
)
TRANSFORMERS_4 = Competitor(
    "transformers-4", "transformers 4.46.3", "transformers_pretrained", python=ORACLE_PYTHON
)
TRANSFORMERS_4_LOW = Competitor(
    "transformers-4-low",
    "transformers 4.46.3, low_cpu_mem_usage",
    "transformers_pretrained",
    "low_cpu_mem_usage",
    python=ORACLE_PYTHON,
)
TRANSFORMERS_5 = Competitor("transformers-5", "transformers 5", "transformers_pretrained")
LOADERS = (WINDLASS, WINDLASS_OWNED, TRANSFORMERS_4, TRANSFORMERS_4_LOW, TRANSFORMERS_5)

PRETRAINED = (
    Workload(
        "pretrained-tinyllama",
        "from_pretrained, TinyLlama-1.1B, 2.2 GB bf16 in 5 shards, every byte touched",
        "pretrained",
        "tinyllama",
        LOADERS,
        model_dtype="bfloat16",
    ),
    Workload(
        "pretrained-tiny",
        "from_pretrained, 6,000 tiny tensors in a transformer, every byte touched",
        "pretrained",
        "tiny-transformer",
        LOADERS,
        states=(WARM,),
        model_dtype="float32",
    ),
    Workload(
        "import-modeling-utils",
        "import of windlass.modeling_utils, and of torch alone, above a bare interpreter",
        "import",
        "one-kilobyte",
        (
            Competitor(
                "windlass",
                "import windlass.modeling_utils",
                "import_time",
                "windlass.modeling_utils",
            ),
            Competitor("torch", "import torch", "import_time", "torch"),
        ),
        states=(UNCONTROLLED,),
    ),
)
