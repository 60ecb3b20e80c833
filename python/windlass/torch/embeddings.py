"""Vocabularies that grow and shrink: embeddings, output layers and their biases, resized.

The rows of new tokens are drawn close to the mean of the old ones: a model that has not seen a
token then gives it the probability of an average one, and its other answers hardly change.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from windlass.errors import InvalidResize

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: How much narrower than the old rows the new ones are spread, as a factor of the variance.
_NARROWING = 1e-9


def count_padded(num_tokens: int, pad_to_multiple_of: int | None) -> int:
    """Return a number of tokens, rounded up.

    Args:
        num_tokens: tokens.
        pad_to_multiple_of: what the result is a multiple of; None for no rounding.

    Raises:
        InvalidResize: the multiple is no positive integer.

    Example:
        >>> count_padded(50257, 64)
        50304
    """
    if pad_to_multiple_of is None:
        return num_tokens
    if not isinstance(pad_to_multiple_of, int) or pad_to_multiple_of <= 0:
        message = f"pad_to_multiple_of: expected a positive integer, found {pad_to_multiple_of!r}"
        raise InvalidResize(message)
    return -(-num_tokens // pad_to_multiple_of) * pad_to_multiple_of


def resize_embeddings(
    old_embeddings: nn.Embedding,
    new_num_tokens: int | None = None,
    pad_to_multiple_of: int | None = None,
    *,
    mean_resizing: bool = True,
    initialise: Callable[[nn.Module], None] | None = None,
) -> nn.Embedding:
    """Give embeddings another number of rows; the module and its parameter stay the same objects.

    Args:
        old_embeddings: the embeddings.
        new_num_tokens: rows; None for as many as now.
        pad_to_multiple_of: what the number of rows is rounded up to; None for no rounding.
        mean_resizing: draw new rows around the mean of the old ones; else leave them to
            `initialise`.
        initialise: fills a module of the new size, of which the new rows are kept: a model's
            `_init_weights`. By default, as `nn.Embedding` does.

    Returns:
        The embeddings that were given.

    Raises:
        InvalidResize: `pad_to_multiple_of` is no positive integer, or they are no `nn.Embedding`.

    Example:
        >>> embedding = torch.nn.Embedding(5, 3)
        >>> resize_embeddings(embedding, 6, pad_to_multiple_of=4) is embedding
        True
        >>> embedding.weight.shape
        torch.Size([8, 3])
    """
    old_count = old_embeddings.weight.shape[0]
    wanted = old_count if new_num_tokens is None else new_num_tokens
    count = count_padded(wanted, pad_to_multiple_of)
    if count == old_count:
        return old_embeddings
    check_kind("embeddings", old_embeddings, nn.Embedding)
    new = nn.Embedding(count, old_embeddings.embedding_dim, **_place(old_embeddings))
    _fill_new(new, old_embeddings, mean_resizing=mean_resizing, initialise=initialise)
    _copy_rows(new.weight.data, old_embeddings.weight.data)
    old_embeddings.weight.data = new.weight.data
    old_embeddings.num_embeddings = count
    padding = old_embeddings.padding_idx
    if padding is not None and padding >= count:
        old_embeddings.padding_idx = None
    return old_embeddings


def resize_lm_head(
    old_lm_head: nn.Linear,
    new_num_tokens: int | None = None,
    transposed: bool = False,  # noqa: FBT001, FBT002  (the signature that it replaces)
    *,
    mean_resizing: bool = True,
    initialise: Callable[[nn.Module], None] | None = None,
) -> nn.Linear:
    """Return an output layer with another number of tokens.

    Args:
        old_lm_head: the layer, which is not changed.
        new_num_tokens: tokens; None for as many as now.
        transposed: its weight is `[dimension, tokens]` instead of `[tokens, dimension]`.
        mean_resizing: draw new rows and biases around the mean of the old ones; else leave them
            to `initialise`.
        initialise: as for `resize_embeddings`; by default, as `nn.Linear` does.

    Returns:
        A new layer, or the old one if it has that number of tokens.

    Raises:
        InvalidResize: it is no `nn.Linear`.

    Example:
        >>> resize_lm_head(torch.nn.Linear(3, 5), 8).weight.shape
        torch.Size([8, 3])
    """
    if new_num_tokens is None:
        return old_lm_head
    old_count, dimension = _rows(old_lm_head.weight, transposed=transposed).shape
    if old_count == new_num_tokens:
        return old_lm_head
    check_kind("lm_head", old_lm_head, nn.Linear)
    sizes = (new_num_tokens, dimension) if transposed else (dimension, new_num_tokens)
    new = nn.Linear(*sizes, bias=old_lm_head.bias is not None, **_place(old_lm_head))
    _fill_new(
        new, old_lm_head, mean_resizing=mean_resizing, initialise=initialise, transposed=transposed
    )
    _copy_rows(
        _rows(new.weight.data, transposed=transposed),
        _rows(old_lm_head.weight.data, transposed=transposed),
    )
    if old_lm_head.bias is not None:  # A transposed layer has one for each dimension.
        _resize_bias(new.bias.data, old_lm_head.bias.data, mean_resizing=mean_resizing)
    return new


def draw_around_mean(old: torch.Tensor, count: int) -> torch.Tensor:
    """Return rows drawn from a normal distribution with the mean of others, narrow about it.

    Its covariance is a billionth of the old rows'. Where that is none that can be drawn from (too
    few rows, rows that depend on each other), all are the mean.

    Args:
        old: the others, `[rows, dimension]`.
        count: rows to draw.

    Example:
        >>> draw_around_mean(torch.ones(4, 3), 2)
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    rows = old.to(torch.float32)
    mean = rows.mean(dim=0)
    centred = rows - mean
    factor, failed = torch.linalg.cholesky_ex(centred.T @ centred / len(rows))
    drawn = mean.expand(count, -1)
    if not failed:
        drawn = drawn + torch.randn_like(drawn) @ factor.T * _NARROWING**0.5
    return drawn.to(old.dtype)


def _fill_new(
    new: nn.Embedding | nn.Linear,
    old: nn.Embedding | nn.Linear,
    *,
    mean_resizing: bool,
    initialise: Callable[[nn.Module], None] | None,
    transposed: bool = False,
) -> None:
    """Fill the rows that the old module does not have; what the others hold does not matter."""
    rows = _rows(new.weight.data, transposed=transposed)
    old_rows = _rows(old.weight.data, transposed=transposed)
    added = len(rows) - len(old_rows)
    if added <= 0:
        return
    if mean_resizing:
        rows[-added:] = draw_around_mean(old_rows, added)
        logger.info(
            "%d new rows are drawn around the mean of the %d old ones; mean_resizing=False "
            "initialises them as the model does",
            added,
            len(old_rows),
        )
    elif initialise is not None:
        initialise(new)


def _fill_new_bias(new: torch.Tensor, old: torch.Tensor) -> None:
    """Draw the biases of new tokens around the mean of the old ones, and as narrow."""
    old = old.to(torch.float32)
    spread = old.std().nan_to_num() if len(old) > 1 else old.new_zeros(())
    drawn = old.mean() + torch.randn(len(new), device=old.device) * spread * _NARROWING
    new.copy_(drawn)


def _resize_bias(new: torch.Tensor, old: torch.Tensor, *, mean_resizing: bool) -> None:
    added = len(new) - len(old)
    if added > 0 and mean_resizing:
        _fill_new_bias(new[-added:], old)
    _copy_rows(new, old)


def _copy_rows(new: torch.Tensor, old: torch.Tensor) -> None:
    count = min(len(new), len(old))
    new[:count] = old[:count]


def _rows(weight: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    """Return a view of a weight with a row for each token."""
    return weight.T if transposed else weight


def _place(module: nn.Embedding | nn.Linear) -> dict[str, Any]:
    return {"device": module.weight.device, "dtype": module.weight.dtype}


def check_kind(what: str, module: nn.Module, kind: type[nn.Module]) -> None:
    """Raise for a module of another kind than the one that can be resized.

    Raises:
        InvalidResize: says what it is.
    """
    if not isinstance(module, kind):
        message = (
            f"{what}: expected an nn.{kind.__name__}, found {type(module).__name__}; a model with "
            "such a module resizes it by a method of its own"
        )
        raise InvalidResize(message)
