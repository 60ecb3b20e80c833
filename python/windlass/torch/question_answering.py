"""Heads that find an answer in a text: where it starts and ends, and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from windlass.config import PretrainedConfig

_HIDDEN_IN_HALF, _HIDDEN = 65500, 1e30


class PoolerStartLogits(nn.Module):
    """Scores of each token as the first of the answer.

    Args:
        config: has `hidden_size`.

    Example:
        >>> head = PoolerStartLogits(PretrainedConfig(hidden_size=4))
        >>> head(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 5])
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, 1)

    def forward(
        self, hidden_states: torch.Tensor, p_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return scores `[batch, length]`.

        Args:
            hidden_states: `[batch, length, hidden_size]`.
            p_mask: `[batch, length]`, 1 for a token that cannot be in the answer.
        """
        return _hide(self.dense(hidden_states).squeeze(-1), p_mask, self.dense.weight)


class PoolerEndLogits(nn.Module):
    """Scores of each token as the last of an answer that starts at a given one.

    Args:
        config: has `hidden_size` and `layer_norm_eps`.

    Example:
        >>> head = PoolerEndLogits(PretrainedConfig(hidden_size=4, layer_norm_eps=1e-5))
        >>> head(torch.zeros(2, 5, 4), start_positions=torch.tensor([0, 1])).shape
        torch.Size([2, 5])
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.dense_0 = nn.Linear(config.hidden_size * 2, config.hidden_size)
        self.activation = nn.Tanh()
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dense_1 = nn.Linear(config.hidden_size, 1)

    def forward(
        self,
        hidden_states: torch.Tensor,
        start_states: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        p_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return scores `[batch, length]`.

        Args:
            hidden_states: `[batch, length, hidden_size]`.
            start_states: states of the first token, of the shape of `hidden_states`.
            start_positions: `[batch]`, which tokens these are; they count if both are given.
            p_mask: as for `PoolerStartLogits`.

        Raises:
            ValueError: neither of the two is given.
        """
        if start_positions is not None:
            start = _states_at(hidden_states, start_positions)
            start_states = start.unsqueeze(-2).expand(-1, hidden_states.shape[-2], -1)
        start_states = _given(start_states)
        states = self.dense_0(torch.cat([hidden_states, start_states], dim=-1))
        states = self.LayerNorm(self.activation(states))
        return _hide(self.dense_1(states).squeeze(-1), p_mask, self.dense_1.weight)


class PoolerAnswerClass(nn.Module):
    """Score of whether the text has an answer.

    Args:
        config: has `hidden_size`.

    Example:
        >>> head = PoolerAnswerClass(PretrainedConfig(hidden_size=4))
        >>> head(torch.zeros(2, 5, 4), start_positions=torch.tensor([0, 1])).shape
        torch.Size([2])
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.dense_0 = nn.Linear(config.hidden_size * 2, config.hidden_size)
        self.activation = nn.Tanh()
        self.dense_1 = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        start_states: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        cls_index: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return scores `[batch]`.

        Args:
            hidden_states: `[batch, length, hidden_size]`.
            start_states: states of the first token, `[batch, hidden_size]`.
            start_positions: `[batch]`, which tokens these are; they count if both are given.
            cls_index: `[batch]`, which token stands for the text; the last one by default.

        Raises:
            ValueError: neither of the first two is given.
        """
        if start_positions is not None:
            start_states = _states_at(hidden_states, start_positions)
        start_states = _given(start_states)
        whole = (
            hidden_states[:, -1, :] if cls_index is None else _states_at(hidden_states, cls_index)
        )
        states = self.activation(self.dense_0(torch.cat([start_states, whole], dim=-1)))
        scores: torch.Tensor = self.dense_1(states)
        return scores.squeeze(-1)


@dataclass
class SquadHeadOutput:
    """What a `SQuADHead` returns.

    Attributes:
        loss: in training: of first and last token, and of whether there is an answer.
        start_top_log_probs: `[batch, start_n_top]`, else: chances of the best first tokens.
        start_top_index: `[batch, start_n_top]`, which these are.
        end_top_log_probs: `[batch, start_n_top * end_n_top]`, chances of the best last ones.
        end_top_index: `[batch, start_n_top * end_n_top]`, which these are.
        cls_logits: `[batch]`, scores of there being no answer.
    """

    loss: torch.Tensor | None = None
    start_top_log_probs: torch.Tensor | None = None
    start_top_index: torch.Tensor | None = None
    end_top_log_probs: torch.Tensor | None = None
    end_top_index: torch.Tensor | None = None
    cls_logits: torch.Tensor | None = None


class SQuADHead(nn.Module):
    """Finds answers in texts, as XLNet does: the best starts, and the best ends of each.

    Args:
        config: has `hidden_size`, `layer_norm_eps`, `start_n_top` and `end_n_top`.

    Example:
        >>> config = PretrainedConfig(
        ...     hidden_size=4, layer_norm_eps=1e-5, start_n_top=2, end_n_top=3
        ... )
        >>> SQuADHead(config)(torch.zeros(1, 5, 4), return_dict=True).end_top_index.shape
        torch.Size([1, 6])
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.start_n_top: int = config.start_n_top
        self.end_n_top: int = config.end_n_top
        self.start_logits = PoolerStartLogits(config)
        self.end_logits = PoolerEndLogits(config)
        self.answer_class = PoolerAnswerClass(config)

    def forward(  # noqa: PLR0917  (the signature that it replaces)
        self,
        hidden_states: torch.Tensor,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        cls_index: torch.Tensor | None = None,
        is_impossible: torch.Tensor | None = None,
        p_mask: torch.Tensor | None = None,
        return_dict: bool = False,  # noqa: FBT001, FBT002
    ) -> SquadHeadOutput | tuple[torch.Tensor, ...]:
        """Return the loss if both positions are given, else the best answers.

        Args:
            hidden_states: `[batch, length, hidden_size]`.
            start_positions: `[batch]`, first token of the answer.
            end_positions: `[batch]`, last token of the answer.
            cls_index: `[batch]`, which token stands for the text; the last one by default.
            is_impossible: `[batch]`, 1 for a text without an answer; counts with `cls_index`.
            p_mask: as for `PoolerStartLogits`.
            return_dict: a `SquadHeadOutput`, not a tuple.
        """
        start_logits = self.start_logits(hidden_states, p_mask=p_mask)
        if start_positions is None or end_positions is None:
            best = self._find_best(hidden_states, start_logits, cls_index, p_mask)
            return SquadHeadOutput(None, *best) if return_dict else best
        start, end = _flat(start_positions), _flat(end_positions)
        end_logits = self.end_logits(hidden_states, start_positions=start, p_mask=p_mask)
        loss = nn.functional.cross_entropy(start_logits, start)
        loss = (loss + nn.functional.cross_entropy(end_logits, end)) / 2
        if cls_index is not None and is_impossible is not None:
            scores = self.answer_class(
                hidden_states, start_positions=start, cls_index=_flat(cls_index)
            )
            is_there = nn.functional.binary_cross_entropy_with_logits(scores, _flat(is_impossible))
            loss = loss + is_there * 0.5
        return SquadHeadOutput(loss=loss) if return_dict else (loss,)

    def _find_best(
        self,
        hidden_states: torch.Tensor,
        start_logits: torch.Tensor,
        cls_index: torch.Tensor | None,
        p_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        batch, length, width = hidden_states.shape
        start_chances = start_logits.softmax(dim=-1)
        best_starts, start_index = start_chances.topk(self.start_n_top, dim=-1)
        at_starts = hidden_states.gather(-2, start_index.unsqueeze(-1).expand(-1, -1, width))
        per_token = at_starts.unsqueeze(1).expand(-1, length, -1, -1)
        ends = self.end_logits(
            hidden_states.unsqueeze(2).expand_as(per_token),
            start_states=per_token,
            p_mask=None if p_mask is None else p_mask.unsqueeze(-1),
        )
        best_ends, end_index = ends.softmax(dim=1).topk(self.end_n_top, dim=1)
        expected_start = torch.einsum("blh,bl->bh", hidden_states, start_chances)
        cls_logits = self.answer_class(
            hidden_states, start_states=expected_start, cls_index=cls_index
        )
        found = (best_ends.reshape(batch, -1), end_index.reshape(batch, -1))
        return (best_starts, start_index, *found, cls_logits)


def _states_at(hidden_states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the state of one token of each text."""
    index = positions[:, None, None].expand(-1, -1, hidden_states.shape[-1])
    return hidden_states.gather(-2, index).squeeze(-2)


def _given(start_states: torch.Tensor | None) -> torch.Tensor:
    if start_states is None:
        message = "expected start_states or start_positions, found neither"
        raise ValueError(message)
    return start_states


def _hide(scores: torch.Tensor, p_mask: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:
    if p_mask is None:
        return scores
    least = _HIDDEN_IN_HALF if weight.dtype == torch.float16 else _HIDDEN
    return scores * (1 - p_mask) - least * p_mask


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return `[batch]` of `[batch, 1]`, as `nn.DataParallel` deals it out."""
    return tensor.squeeze(-1) if tensor.dim() > 1 else tensor
