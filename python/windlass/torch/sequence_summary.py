"""`SequenceSummary`: one vector for a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from windlass.errors import InvalidConfig, NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass.config import PretrainedConfig

#: Names of activations → their functions.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}

_KINDS = ("last", "first", "mean", "cls_index")


class SequenceSummary(nn.Module):
    """Sums up the states of a text in one vector.

    Args:
        config: may have `summary_type` (`"last"` token, the default, `"first"`, `"mean"`, or the
            one at `"cls_index"`), `summary_use_proj` (a linear layer after it),
            `summary_proj_to_labels` (to `num_labels`, not `hidden_size`), `summary_activation` (its
            name), `summary_first_dropout` and `summary_last_dropout` (before and after those).

    Raises:
        NotSupported: `summary_type` is `"attn"`, which 4.46 does not have either.
        InvalidConfig: there is no such `summary_type` or `summary_activation`.

    Example:
        >>> SequenceSummary(PretrainedConfig(summary_type="mean"))(torch.ones(2, 5, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.summary_type = _checked(getattr(config, "summary_type", "last"))
        self.summary: nn.Module = nn.Identity()
        if getattr(config, "summary_use_proj", False):
            to_labels = getattr(config, "summary_proj_to_labels", False) and config.num_labels > 0
            outputs = config.num_labels if to_labels else config.hidden_size
            self.summary = nn.Linear(config.hidden_size, outputs)
        self.activation = _activation(getattr(config, "summary_activation", None))
        self.first_dropout = _dropout(getattr(config, "summary_first_dropout", 0))
        self.last_dropout = _dropout(getattr(config, "summary_last_dropout", 0))

    def forward(
        self, hidden_states: torch.Tensor, cls_index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the vectors.

        Args:
            hidden_states: `[batch, length, hidden_size]`, for `"cls_index"` maybe with more
                dimensions between the first two.
            cls_index: for `"cls_index"`, the token of each text, without the last two dimensions;
                the last token by default.
        """
        summed = self.first_dropout(self._sum_up(hidden_states, cls_index))
        result: torch.Tensor = self.last_dropout(self.activation(self.summary(summed)))
        return result

    def _sum_up(self, hidden_states: torch.Tensor, cls_index: torch.Tensor | None) -> torch.Tensor:
        if self.summary_type == "mean":
            return hidden_states.mean(dim=1)
        if self.summary_type == "first":
            return hidden_states[:, 0]
        if self.summary_type == "last":
            return hidden_states[:, -1]
        if cls_index is None:
            return hidden_states[..., -1, :]
        index = cls_index[..., None, None].expand(*cls_index.shape, 1, hidden_states.shape[-1])
        return hidden_states.gather(-2, index).squeeze(-2)


def _checked(kind: str) -> str:
    if kind == "attn":
        message = "summary_type: `attn` is not there yet; take `mean` or a token"
        raise NotSupported(message)
    if kind not in _KINDS:
        message = f"summary_type: expected one of {', '.join(_KINDS)}, found {kind!r}"
        raise InvalidConfig(message)
    return kind


def _activation(name: str | None) -> nn.Module:
    if not name:
        return nn.Identity()
    if name not in _ACTIVATIONS:
        message = f"summary_activation: expected one of {', '.join(_ACTIVATIONS)}, found {name!r}"
        raise InvalidConfig(message)
    return _ACTIVATIONS[name]()


def _dropout(chance: float) -> nn.Module:
    return nn.Dropout(chance) if chance > 0 else nn.Identity()
