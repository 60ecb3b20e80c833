"""windlass: `PreTrainedModel.from_pretrained`; variant `owned` gives `memory="owned"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass import PretrainedConfig, PreTrainedModel

from engines.pretrained_task import run_pretrained
from engines.protocol import parse_arguments

if TYPE_CHECKING:
    import torch
    from torch import nn


def main() -> None:
    """Measure with the memory of the variant."""
    arguments = parse_arguments()
    options = {} if arguments.variant == "default" else {"memory": arguments.variant}

    def load(model: type[Any], folder: str, config: Any, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
        loaded: nn.Module = model.from_pretrained(
            folder, config=config, torch_dtype=dtype, **options
        )
        return loaded

    run_pretrained(PreTrainedModel, PretrainedConfig, load, arguments)


if __name__ == "__main__":
    main()
