"""What a checkpoint has beside its weights: configurations and code, made before."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.config import PretrainedConfig
from windlass.custom_code import save_custom_code
from windlass.torch.held_tensors import get_parameter_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from windlass.torch.pretrained.model import PreTrainedModel


def describe(model: PreTrainedModel) -> dict[str, bytes]:
    """Return the files that go beside the weights, by name: `config.json`, and what else there is.

    Classes of configurations may write themselves in ways of their own, so they write to a folder
    of no consequence, from which the files are read.
    """
    with tempfile.TemporaryDirectory(prefix="windlass-") as folder:
        _write(model, folder)
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {os.path.relpath(path, folder): path.read_bytes() for path in paths}


def _write(model: PreTrainedModel, folder: str) -> None:
    config = copy.deepcopy(model.config)
    dtype = get_parameter_dtype(model)
    config.torch_dtype = str(dtype).removeprefix("torch.")
    config.architectures = [type(model).__name__]
    for one in _with_parts(config):
        one._attn_implementation_autoset = False
    if model._auto_class is not None:
        save_custom_code(model, folder, config)
    if model.can_generate():
        generation: Any = copy.deepcopy(model.generation_config)
        _move_generation_settings(config, generation)
        generation.save_pretrained(folder)
    config.save_pretrained(folder)


def _with_parts(config: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield a configuration and those in it."""
    yield config
    for value in vars(config).values():
        if isinstance(value, PretrainedConfig):
            yield from _with_parts(value)


def _move_generation_settings(config: Any, generation: Any) -> None:  # noqa: ANN401
    """Let settings for generation that are in the configuration be saved where they belong."""
    misplaced = config._get_non_default_generation_parameters()
    if misplaced:
        message = (
            f"these settings of the configuration are for generation, and are saved in "
            f"generation_config.json instead: {misplaced}"
        )
        warnings.warn(message, UserWarning, stacklevel=5)
    for name, value in misplaced.items():
        setattr(generation, name, value)
        setattr(config, name, None)
