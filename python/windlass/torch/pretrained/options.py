"""What `from_pretrained` was asked for: options taken out of its keywords, and checked."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from windlass.spellings import take_token
from windlass.torch.pretrained.devices import find_device_for
from windlass.torch.pretrained.dtypes import parse_dtype
from windlass.torch.pretrained.from_files import HubOptions, Wanted, check_variant
from windlass.torch.pretrained.unsupported import take_unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from windlass.types import PathLike

logger = logging.getLogger(__name__)

#: Arguments that have no effect any more.
_WITHOUT_EFFECT = ("resume_download", "mirror")

#: Arguments that only transformers' own auto classes and pipelines give.
_INTERNAL = ("_from_auto", "_from_pipeline")

#: Arguments of transformers that change nothing here, and why.
_UNUSED = {
    "adapter_name": "adapters (PEFT) are not loaded yet",
    "code_revision": "no code is loaded from the hub",
    "_commit_hash": "weights are taken from the commit of the configuration; give revision",
}


class Options(NamedTuple):
    """What `from_pretrained` was asked for, less what goes to the configuration and the model."""

    path: str | None
    hub: HubOptions
    wanted: Wanted
    weights_only: bool
    state_dict: Mapping[str, torch.Tensor] | None
    dtype: object
    device_map: object
    device: torch.device | None
    fast_init: bool
    attn_implementation: object
    use_flash_attention_2: bool
    generation_config: Any
    output_loading_info: bool

    @property
    def folder(self) -> str | None:
        """Folder or id that has the configurations: of a file, the folder that it is in."""
        if self.path is None:
            return None
        return os.path.dirname(self.path) or "." if os.path.isfile(self.path) else self.path

    def at_commit(self, config: Any) -> Options:  # noqa: ANN401
        """Take the weights from the commit that the configuration came from, if that is known."""
        commit = getattr(config, "_commit_hash", None)
        return self if commit is None else self._replace(hub=self.hub._replace(revision=commit))


def take_options(
    kwargs: dict[str, Any],
    path: PathLike | None,
    hub: HubOptions,
    use_safetensors: bool | None,  # noqa: FBT001
    *,
    weights_only: bool,
) -> Options:
    """Take the options out of `kwargs`, and check what can be checked without a file."""
    take_unsupported(kwargs)
    _take_ineffective(kwargs)
    state_dict = kwargs.pop("state_dict", None)
    if path is None and state_dict is None:
        message = "from_pretrained needs a folder, a file or an id; or state_dict with config"
        raise ValueError(message)
    device_map = kwargs.pop("device_map", None)
    if device_map is not None and kwargs.pop("low_cpu_mem_usage", None) is False:
        message = "device_map and low_cpu_mem_usage=False contradict each other: leave one out"
        raise ValueError(message)
    kwargs.pop("low_cpu_mem_usage", None)
    path, subfolder = _resolve(path, kwargs.pop("subfolder", None) or "")
    return Options(
        path=path,
        hub=hub._replace(
            subfolder=subfolder,
            token=take_token(hub.token, kwargs.pop("use_auth_token", None)),
            proxies=kwargs.pop("proxies", None),
        ),
        wanted=Wanted(check_variant(kwargs.pop("variant", None)), use_safetensors),
        weights_only=weights_only,
        state_dict=state_dict,
        dtype=_take_dtype(kwargs),
        device_map=device_map,
        device=find_device_for(device_map),
        fast_init=kwargs.pop("_fast_init", True),
        attn_implementation=kwargs.pop("attn_implementation", None),
        use_flash_attention_2=kwargs.pop("use_flash_attention_2", False),
        generation_config=kwargs.pop("generation_config", None),
        output_loading_info=kwargs.pop("output_loading_info", False),
    )


def _resolve(path: PathLike | None, subfolder: str) -> tuple[str | None, str]:
    """Return a path and a folder within it; of a file in a subfolder its whole path, and none."""
    if path is None:
        return None, subfolder
    file = os.path.join(subfolder, path)
    return (file, "") if os.path.isfile(file) else (os.fspath(path), subfolder)


def _take_ineffective(kwargs: dict[str, Any]) -> None:
    for name in _INTERNAL:
        kwargs.pop(name, None)
    for name in _WITHOUT_EFFECT:
        if kwargs.pop(name, None) is not None:
            message = f"{name} is deprecated and has no effect"
            warnings.warn(message, FutureWarning, stacklevel=4)
    for name, reason in _UNUSED.items():
        if kwargs.pop(name, None) is not None:
            warnings.warn(f"{name} has no effect: {reason}", UserWarning, stacklevel=4)
    if kwargs.pop("trust_remote_code", None):
        logger.warning("trust_remote_code has no effect: the class that loads is the model's code")


def _take_dtype(kwargs: dict[str, Any]) -> object:
    dtype, torch_dtype = kwargs.pop("dtype", None), kwargs.pop("torch_dtype", None)
    if None not in (dtype, torch_dtype) and dtype != torch_dtype:
        message = f"dtype={dtype!r} and torch_dtype={torch_dtype!r} contradict each other"
        raise ValueError(message)
    wanted = dtype if torch_dtype is None else torch_dtype
    if wanted not in (None, "auto"):
        parse_dtype(wanted)  # What is no dtype is said before a file is looked for.
    return wanted
