"""The configurations beside the weights: the model's, and that of generation."""

from __future__ import annotations

import copy
import logging
import os
from typing import TYPE_CHECKING, Any

from windlass.config_file import ADAPTER_CONFIG
from windlass.errors import ConfigNotFound, FileNotInRepository, NotCached, NotSupported
from windlass.torch.pretrained.from_files import is_on_hub

if TYPE_CHECKING:
    import torch

    from windlass.config import PretrainedConfig
    from windlass.torch.pretrained.from_files import HubOptions
    from windlass.torch.pretrained.options import Options
    from windlass.types import PathLike

logger = logging.getLogger(__name__)


def load_config(
    cls: Any,  # noqa: ANN401
    config: PretrainedConfig | PathLike | None,
    options: Options,
    kwargs: dict[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Return the configuration, and the arguments that it does not take.

    Raises:
        NotSupported: the checkpoint is an adapter (PEFT), or has one.
        ValueError: no configuration is given, or none that can be one.
    """
    from windlass.config import PretrainedConfig

    if isinstance(config, PretrainedConfig):
        return copy.deepcopy(config), kwargs
    if config is not None and not isinstance(config, str | os.PathLike):
        message = (
            "config should be a configuration, or a folder or id to load one from; found "
            f"{type(config).__name__}: make it a {_name_of(cls.config_class)} first"
        )
        raise ValueError(message)
    where = options.folder if config is None else config
    if where is None:
        message = "from_pretrained needs config where no folder or id is given"
        raise ValueError(message)
    if cls.config_class is None:
        message = f"{cls.__name__} sets no config_class; give config, or set it"
        raise ValueError(message)
    try:
        loaded, rest = cls.config_class.from_pretrained(
            where, return_unused_kwargs=True, **options.hub._asdict(), **kwargs
        )
    except (ConfigNotFound, FileNotInRepository):
        if config is None:
            refuse_adapter(options)  # They have no configuration of a model.
        raise
    return loaded, rest


def refuse_adapter(options: Options) -> None:
    """Raise for a checkpoint with an adapter: its weights alone would be another model.

    Raises:
        NotSupported: the folder or repository has an `adapter_config.json`.
    """
    path = options.path
    if path is None or options.state_dict is not None or os.path.isfile(path):
        return
    if _has(path, ADAPTER_CONFIG, options.hub):
        message = (
            f"`{path}` has an adapter (PEFT), which is not loaded yet: load it with the peft "
            "package, or name the weights file of the base model"
        )
        raise NotSupported(message)


def _has(path: str, name: str, hub: HubOptions) -> bool:
    if not is_on_hub(path):
        return os.path.isfile(os.path.join(path, hub.subfolder, name))
    from windlass.hub import cached_file

    try:
        return cached_file(path, name, missing="none", **hub._asdict()) is not None
    except NotCached:
        return False  # Nobody can be asked: the model is what the cache has.


def _name_of(kind: type | None) -> str:
    return "PretrainedConfig" if kind is None else kind.__name__


def prepare_config(
    cls: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    options: Options,
    dtype: torch.dtype | None,
) -> Any:  # noqa: ANN401
    """Return the configuration with its attention chosen, and where it comes from."""
    config.name_or_path = options.path
    if options.attn_implementation is not None:
        config._attn_implementation = options.attn_implementation
        config._attn_implementation_autoset = False
    if getattr(config, "_attn_implementation_autoset", False):
        return config
    return cls._autoset_attn_implementation(
        config,
        use_flash_attention_2=options.use_flash_attention_2,
        torch_dtype=dtype,
        device_map=options.device,
    )


def load_generation(folder: str, hub: HubOptions, fields: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the generation configuration of the checkpoint, if it has one, with these fields.

    Raises:
        InvalidConfigFile: it is damaged.
        HubError: the hub has it, and does not give it.
    """
    from windlass.generation import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder, **hub._asdict(), **fields)
    except (ConfigNotFound, FileNotInRepository):
        logger.info(
            "`%s` has no generation_config.json: the model goes by its own configuration",
            folder,
        )
    except NotCached as error:
        logger.log(
            logging.INFO if _is_offline(hub) else logging.WARNING,
            "`%s`: generation_config.json is not cached, and the hub cannot be asked whether there "
            "is one: the model goes by its own configuration (%s)",
            folder,
            error,
        )
    return None


def _is_offline(hub: HubOptions) -> bool:
    from windlass.hub import is_offline

    return is_offline(local_files_only=hub.local_files_only)
