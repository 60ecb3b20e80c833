"""`ModuleUtilsMixin`: what every model can be asked and told, whatever it computes."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from torch import nn

from windlass.torch import attention_masks, memory_hooks
from windlass.torch.held_tensors import get_parameter_device, get_parameter_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    _Module = nn.Module
else:
    _Module = object

logger = logging.getLogger(__name__)


class ModuleUtilsMixin(_Module):
    """Adds questions about size, place and masks to an `nn.Module`.

    A class with `main_input_name` and a `config` can be asked everything; without them, only
    `estimate_tokens`, `floating_point_ops` and `get_extended_attention_mask` are out of reach.

    Example:
        >>> class Tiny(ModuleUtilsMixin, torch.nn.Linear):
        ...     main_input_name = "input_ids"
        >>> tiny = Tiny(4, 2)
        >>> tiny.num_parameters(), tiny.dtype, tiny.device
        (10, torch.float32, device(type='cpu'))
        >>> tiny.floating_point_ops({"input_ids": torch.zeros(3, 5)})
        900
    """

    main_input_name: str
    config: Any
    warnings_issued: dict[str, Any]

    def add_memory_hooks(self) -> None:
        """Let every module count, in `mem_rss_diff`, the bytes by which its forward passes grew
        this process (resident memory, children included).

        `reset_memory_hooks_state` sets the counts to zero.

        Raises:
            OSError: the system does not tell how much memory the process has.
        """  # noqa: D205
        memory_hooks.add(self)
        self.reset_memory_hooks_state()

    def reset_memory_hooks_state(self) -> None:
        """Set what the hooks of `add_memory_hooks` have counted to zero."""
        memory_hooks.reset(self)

    @property
    def device(self) -> torch.device:
        """The device of the first parameter.

        Raises:
            NoTensors: the module has no parameter.
        """
        return get_parameter_device(self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point parameter; see `get_parameter_dtype`."""
        return get_parameter_dtype(self)  # type: ignore[return-value]  # None without any tensor.

    def invert_attention_mask(self, encoder_attention_mask: torch.Tensor) -> torch.Tensor:
        """Return what is added to attention scores: 0 for a 1 of the mask, the least number for 0.

        Args:
            encoder_attention_mask: `[batch, to]` or `[batch, from, to]`.

        Returns:
            `[batch, 1, 1, to]` or `[batch, 1, from, to]`, in the dtype of the module.

        Raises:
            ValueError: a mask of other dimensions.
        """
        spread = attention_masks.spread_over_heads(encoder_attention_mask)
        return attention_masks.invert(spread, self.dtype)

    @staticmethod
    def create_extended_attention_mask_for_decoder(
        input_shape: Sequence[int],
        attention_mask: torch.Tensor,
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """Return a mask by which no position sees a later one.

        Args:
            input_shape: batch and length of the input.
            attention_mask: `[batch, to]`; where it is longer than the input, what it has more is
                taken to come before the input.
            device: deprecated; the device of the mask by default.

        Returns:
            `[batch, 1, from, to]`: 1 where a position is seen, in the dtype of the mask.
        """
        if device is not None:
            _warn_of_device()
        return attention_masks.hide_future(
            input_shape, attention_mask, device or attention_mask.device
        )

    def get_extended_attention_mask(
        self,
        attention_mask: torch.Tensor,
        input_shape: Sequence[int],
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Return what is added to attention scores for a mask of ones and zeros.

        Args:
            attention_mask: `[batch, to]`, which for a decoder (`config.is_decoder`) also hides
                later positions, or `[batch, from, to]`.
            input_shape: batch and length of the input.
            device: deprecated; has no effect but for a decoder.
            dtype: of the result; that of the module by default.

        Returns:
            A tensor that scores `[batch, head, from, to]` can be added to.

        Raises:
            ValueError: a mask of other dimensions.
        """
        if attention_mask.dim() == attention_masks.PER_BATCH and self.config.is_decoder:
            spread = self.create_extended_attention_mask_for_decoder(
                input_shape, attention_mask, device
            )
        else:
            if device is not None:
                _warn_of_device()
            spread = attention_masks.spread_over_heads(attention_mask)
        return attention_masks.invert(spread, dtype or self.dtype)

    def get_head_mask(
        self,
        head_mask: torch.Tensor | None,
        num_hidden_layers: int,
        is_attention_chunked: bool = False,  # noqa: FBT001, FBT002
    ) -> torch.Tensor | list[None]:
        """Return a mask of heads for each layer.

        Args:
            head_mask: `[head]` or `[layer, head]`, 1 for a head that is kept; None for no mask.
            num_hidden_layers: layers.
            is_attention_chunked: whether scores have one more dimension.

        Returns:
            `[layer, batch, head, from, to]`, with ones for what the mask does not tell apart, in
            the dtype of the module; a list of None for no mask.

        Raises:
            ValueError: a mask of other dimensions.
        """
        if head_mask is None:
            return [None] * num_hidden_layers
        spread = attention_masks.spread_head_mask(head_mask, num_hidden_layers)
        spread = spread.to(dtype=self.dtype)
        return spread.unsqueeze(-1) if is_attention_chunked else spread

    def num_parameters(
        self,
        only_trainable: bool = False,  # noqa: FBT001, FBT002
        exclude_embeddings: bool = False,  # noqa: FBT001, FBT002
    ) -> int:
        """Return the number of elements of all parameters, each tensor counted once.

        Args:
            only_trainable: leave out parameters that need no gradient.
            exclude_embeddings: leave out the weights of `nn.Embedding` modules. A tied weight
                counts if another module than the embedding comes first.
        """
        left_out = set(_embedding_names(self)) if exclude_embeddings else set()
        packed = getattr(self, "is_loaded_in_4bit", False)
        return sum(
            _count(parameter, packed=packed)
            for name, parameter in self.named_parameters()
            if name not in left_out and (parameter.requires_grad or not only_trainable)
        )

    def estimate_tokens(self, input_dict: Mapping[str, Any]) -> int:
        """Return the number of elements of a model's main input.

        Args:
            input_dict: inputs by name; `main_input_name` says which is meant. Without it, the
                answer is 0, and the first time there is a warning.
        """
        if self.main_input_name in input_dict:
            return int(input_dict[self.main_input_name].numel())
        if not hasattr(self, "warnings_issued"):
            self.warnings_issued = {}
        if "estimate_tokens" not in self.warnings_issued:
            self.warnings_issued["estimate_tokens"] = True
            logger.warning(
                "`%s` is not among the inputs (%s): tokens and operations count as 0",
                self.main_input_name,
                ", ".join(map(str, input_dict)),
            )
        return 0

    def floating_point_ops(
        self,
        input_dict: Mapping[str, Any],
        exclude_embeddings: bool = True,  # noqa: FBT001, FBT002
    ) -> int:
        """Return about how many operations one forward and backward pass of a batch takes.

        Six for each token and parameter. What grows with the square of the length is not in it,
        nor that a parameter may be used twice: such models override this.

        Args:
            input_dict: inputs by name, see `estimate_tokens`.
            exclude_embeddings: leave embeddings out, as in `num_parameters`.
        """
        parameters = self.num_parameters(exclude_embeddings=exclude_embeddings)
        return 6 * self.estimate_tokens(input_dict) * parameters


def _warn_of_device() -> None:
    message = "the argument `device` is deprecated: a mask is made where the given one is"
    warnings.warn(message, FutureWarning, stacklevel=3)


def _embedding_names(model: nn.Module) -> list[str]:
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]


def _count(parameter: torch.Tensor, *, packed: bool) -> int:
    """Count elements; bitsandbytes keeps two of four bits in a byte."""
    if packed and type(parameter).__name__ == "Params4bit":
        return parameter.numel() * 2 * parameter.element_size()
    return parameter.numel()
