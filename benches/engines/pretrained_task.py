"""`from_pretrained` under the clock: a model of any layout, by the base classes of any library.

The model is built inside the call, as in use; its parameters are asked for and not initialised, so
that a library that could skip initialisers is not charged for those of others.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from checkpoints.families import build_layout
from checkpoints.models import add_parameters
from harness.memory import touch_and_free

from engines.proof import ProofError, sum_of_words, verify_tensors
from engines.protocol import Arguments, emit, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def run_pretrained(
    base: Any,  # noqa: ANN401
    config_base: Any,  # noqa: ANN401
    load: Callable[[type[Any], str, Any, torch.dtype], nn.Module],
    arguments: Arguments,
) -> None:
    """Time `load(class, folder, config, dtype)` together with one pass over every byte.

    Without that pass, a library that maps files is timed before it has read anything.

    Args:
        base: the library's `PreTrainedModel`.
        config_base: the library's `PretrainedConfig`.
        load: calls `from_pretrained`.
        arguments: those of the engine.
    """
    model_class, config = _make_model(base, config_base, arguments.workload.layout)
    dtype: torch.dtype = getattr(torch, arguments.workload.model_dtype or "float32")
    num_bytes = sum(path.stat().st_size for path in arguments.folder.glob("*.safetensors"))
    touch_and_free(2 * num_bytes)  # For the weights, and for the page cache or another copy.

    def load_and_touch() -> tuple[nn.Module, float, int]:
        start = time.perf_counter()
        model = load(model_class, str(arguments.folder), config, dtype)
        before_touch = time.perf_counter() - start
        return model, before_touch, sum_of_words(model.parameters())

    (model, before_touch, checksum), measurement = measure(load_and_touch, arguments)
    facts = verify_tensors(dict(model.named_parameters()), arguments.folder)
    if facts["checksum"] != checksum:
        message = "the pass under the clock saw other bytes"
        raise ProofError(message)
    beyond = measurement.extra_peak_bytes - num_bytes
    emit(measurement, **facts, seconds_before_touch=before_touch, peak_beyond_model_bytes=beyond)


def _make_model(base: Any, config_base: Any, layout: str) -> tuple[type[Any], Any]:  # noqa: ANN401
    """Return a class of models, and a config that says which layout its parameters have."""
    tensors = build_layout(layout).tensors

    class LayoutConfig(config_base):  # type: ignore[misc]
        model_type = "bench-layout"

    class LayoutModel(base):  # type: ignore[misc]
        config_class = LayoutConfig

        def __init__(self, config: LayoutConfig) -> None:
            super().__init__(config)
            add_parameters(self, tensors, lambda spec: torch.empty(spec.shape))
            self.post_init()

        def _init_weights(self, module: nn.Module) -> None:
            """Every weight is in the checkpoint."""

    return LayoutModel, LayoutConfig()
