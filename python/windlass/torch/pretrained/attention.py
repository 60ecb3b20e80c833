"""`attn_implementation`: which of a model's attentions is used, and whether it can be."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from windlass.config import PretrainedConfig

_KNOWN = ("eager", "sdpa", "flash_attention_2")


class AttentionMethods(nn.Module):
    """What `PreTrainedModel` knows about its attention."""

    _supports_sdpa: ClassVar[bool] = False
    _supports_flash_attn_2: ClassVar[bool] = False

    @classmethod
    def _autoset_attn_implementation(
        cls,
        config: PretrainedConfig,
        use_flash_attention_2: bool = False,  # noqa: FBT001, FBT002  (the signature that it replaces)
        torch_dtype: torch.dtype | None = None,
        device_map: object = None,
        check_device_map: bool = True,  # noqa: FBT001, FBT002
    ) -> PretrainedConfig:
        """Write into a configuration which attention its model uses, and return it.

        That is the one asked for in `config._attn_implementation`, else `"sdpa"` if the class
        supports it, else `"eager"`. For the parts of a composite model it may be a dict.

        Args:
            config: is changed.
            use_flash_attention_2: old spelling of `"flash_attention_2"`.
            torch_dtype: dtype of the model; flash attention takes two of them.
            device_map: where the model goes, if that is known.
            check_device_map: whether flash attention needs a GPU to be there.

        Raises:
            ValueError: an unknown one, one that the class does not support, or two of them.
            ImportError: its package is not installed.
        """
        wanted = getattr(config, "_attn_implementation_internal", None)
        if use_flash_attention_2:
            wanted = _take_old_spelling(wanted)
        _hand_down(config, wanted)
        if isinstance(wanted, dict):
            config._attn_implementation = None
        elif wanted == "flash_attention_2":
            cls._check_and_enable_flash_attn_2(
                config, torch_dtype, device_map, check_device_map=check_device_map
            )
        elif wanted is None:
            cls._check_and_enable_sdpa(config)
        elif wanted == "sdpa":
            cls._check_and_enable_sdpa(config, hard_check_only=True)
        elif wanted != "eager":
            message = f"attn_implementation should be one of {_KNOWN}, found {wanted!r}"
            raise ValueError(message)
        config._attn_implementation_autoset = True
        return config

    @classmethod
    def _check_and_enable_sdpa(
        cls,
        config: PretrainedConfig,
        hard_check_only: bool = False,  # noqa: FBT001, FBT002
    ) -> PretrainedConfig:
        """Use torch's `scaled_dot_product_attention`, if the class supports it.

        Args:
            config: is changed, unless `hard_check_only`.
            hard_check_only: refuse instead, where the class does not support it.

        Raises:
            ValueError: the class does not support it.
        """
        if hard_check_only and not cls._supports_sdpa:
            message = (
                f'{cls.__name__} does not support attn_implementation="sdpa" (it does not set '
                '_supports_sdpa); attn_implementation="eager" works'
            )
            raise ValueError(message)
        if cls._supports_sdpa and not hard_check_only:
            config._attn_implementation = "sdpa"
        return config

    @classmethod
    def _check_and_enable_flash_attn_2(
        cls,
        config: PretrainedConfig,
        torch_dtype: torch.dtype | None = None,
        device_map: object = None,
        check_device_map: bool = True,  # noqa: FBT001, FBT002
        hard_check_only: bool = False,  # noqa: FBT001, FBT002
    ) -> PretrainedConfig:
        """Use the package `flash_attn`, if it is there and the class supports it.

        Args:
            config: is changed, unless `hard_check_only`.
            torch_dtype: dtype of the model; others than float16 and bfloat16 give a warning.
            device_map: where the model goes, if that is known.
            check_device_map: whether a GPU has to be there.
            hard_check_only: check and change nothing.

        Raises:
            ValueError: the class does not support it, or there is no GPU.
            ImportError: the package is not installed.
        """
        if not cls._supports_flash_attn_2:
            message = (
                f'{cls.__name__} does not support attn_implementation="flash_attention_2" (it does '
                'not set _supports_flash_attn_2); attn_implementation="eager" works'
            )
            raise ValueError(message)
        if importlib.util.find_spec("flash_attn") is None:
            message = (
                'attn_implementation="flash_attention_2" needs the package flash_attn, which is '
                "not installed: pip install flash-attn"
            )
            raise ImportError(message)
        if torch_dtype not in (torch.float16, torch.bfloat16):
            message = f"flash attention takes float16 and bfloat16, the model is {torch_dtype}"
            warnings.warn(message, UserWarning, stacklevel=2)
        if check_device_map and device_map is None and not torch.cuda.is_available():
            message = 'attn_implementation="flash_attention_2" needs a GPU, and there is none'
            raise ValueError(message)
        if not hard_check_only:
            config._attn_implementation = "flash_attention_2"
        return config


def _take_old_spelling(wanted: Any) -> str:  # noqa: ANN401  (a name, a dict of names, or None)
    if wanted not in (None, "flash_attention_2"):
        message = (
            f"attn_implementation={wanted!r} and use_flash_attention_2=True contradict each other; "
            "give attn_implementation alone"
        )
        raise ValueError(message)
    message = 'use_flash_attention_2 is deprecated, use attn_implementation="flash_attention_2"'
    warnings.warn(message, FutureWarning, stacklevel=4)
    return "flash_attention_2"


def _hand_down(config: PretrainedConfig, wanted: Any) -> None:  # noqa: ANN401
    """Ask the configurations of parts for the same, or for their entry of a dict."""
    from windlass.config import PretrainedConfig

    for name, part in vars(config).items():
        if isinstance(part, PretrainedConfig):
            own = wanted.get(name) if isinstance(wanted, dict) else wanted
            part._attn_implementation_internal = own
