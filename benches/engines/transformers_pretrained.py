"""transformers, whichever is installed: `PreTrainedModel.from_pretrained`.

Variant `low_cpu_mem_usage` gives that option, which builds the model without memory first; 5 always
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig, PreTrainedModel, __version__

from engines.pretrained_task import run_pretrained
from engines.protocol import parse_arguments

if TYPE_CHECKING:
    import torch
    from torch import nn

DTYPE = "torch_dtype" if __version__.startswith("4.") else "dtype"


def main() -> None:
    """Measure with the options of the variant."""
    arguments = parse_arguments()
    options = {} if arguments.variant == "default" else {arguments.variant: True}

    def load(model: type[Any], folder: str, config: Any, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
        loaded: nn.Module = model.from_pretrained(
            folder, config=config, **{DTYPE: dtype}, **options
        )
        return loaded

    run_pretrained(PreTrainedModel, PretrainedConfig, load, arguments)


if __name__ == "__main__":
    main()
