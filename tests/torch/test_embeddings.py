"""Resized vocabularies, compared with transformers 4.46.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from torch import nn
from windlass.errors import InvalidResize
from windlass.torch.embeddings import (
    count_padded,
    draw_around_mean,
    resize_embeddings,
    resize_lm_head,
)

if TYPE_CHECKING:
    from oracle.client import Oracle

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _fill(module: nn.Module) -> None:
    """Initialise as the oracle's model does."""
    for parameter in module.parameters():
        parameter.data.fill_(0.5)


def _values(count: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return rows of which no covariance is positive definite: each is a multiple of another."""
    rows = torch.arange(1, count + 1).unsqueeze(1) * torch.arange(1, width + 1)
    return (rows / 8).to(dtype)


_counts = st.integers(1, 9)


@given(
    _counts,
    st.integers(2, 4),
    st.none() | _counts,
    st.sampled_from([None, 1, 4, 8]),
    st.booleans(),
    st.none() | st.integers(0, 3),
    st.sampled_from(DTYPES),
)
def test_embeddings_are_resized_as_by_446(  # noqa: PLR0917
    oracle: Oracle,
    old_count: int,
    width: int,
    count: int | None,
    multiple: int | None,
    mean: Any,
    padding: int | None,
    dtype: torch.dtype,
) -> None:
    weight = _values(old_count, width, dtype)
    padding = None if padding is not None and padding >= old_count else padding
    case = {
        "weight": weight,
        "count": count,
        "multiple": multiple,
        "mean": mean,
        "padding": padding,
    }

    def ours() -> list[Any]:
        old = nn.Embedding(old_count, width, padding_idx=padding)
        old.weight.data = weight.clone()
        new = resize_embeddings(old, count, multiple, mean_resizing=mean, initialise=_fill)
        return [new.weight.data, new.num_embeddings, new.padding_idx, new is old]

    answer = oracle.ask_one("layers.resize_embeddings", case)
    assert_same(answer, ours, same=_same_but_for_rounding)


@given(
    _counts,
    st.integers(2, 4),
    st.none() | _counts,
    st.booleans(),
    st.booleans(),
    st.sampled_from(DTYPES),
)
def test_output_layers_are_resized_as_by_446(  # noqa: PLR0917
    oracle: Oracle,
    old_count: int,
    width: int,
    count: int | None,
    mean: Any,
    with_bias: Any,
    dtype: torch.dtype,
) -> None:
    weight = _values(old_count, width, dtype)
    with_bias = with_bias and old_count > 1  # 4.46 cannot tell how far one bias is spread.
    bias = torch.ones(old_count, dtype=dtype) if with_bias else None
    _compare_lm_head(oracle, weight, bias, count, transposed=False, mean=mean)


@given(_counts, st.integers(2, 4), st.none() | _counts, st.booleans(), st.sampled_from(DTYPES))
def test_transposed_output_layers_are_resized_as_by_446(  # noqa: PLR0917
    oracle: Oracle,
    old_count: int,
    width: int,
    count: int | None,
    mean: Any,
    dtype: torch.dtype,
) -> None:
    weight = _values(old_count, width, dtype).T
    _compare_lm_head(oracle, weight, None, count, transposed=True, mean=mean)


def _compare_lm_head(
    oracle: Oracle,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    count: int | None,
    *,
    transposed: bool,
    mean: Any,
) -> None:
    case = {"weight": weight, "bias": bias, "count": count, "transposed": transposed, "mean": mean}

    def ours() -> list[Any]:
        old = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        old.weight.data = weight.clone()
        if bias is not None:
            old.bias.data = bias.clone()
        new = resize_lm_head(old, count, transposed, mean_resizing=mean, initialise=_fill)
        new_bias = None if new.bias is None else new.bias.data
        return [new.weight.data, new_bias, new.in_features, new.out_features, new is old]

    answer = oracle.ask_one("layers.resize_lm_head", case)
    assert_same(answer, ours, same=_same_but_for_rounding)


def _same_but_for_rounding(ours: list[Any], theirs: list[Any]) -> bool:
    for one, other in zip(ours, theirs, strict=True):
        if not isinstance(one, torch.Tensor):
            assert one == other
            continue
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    return True


def test_old_rows_are_kept_to_the_bit() -> None:
    old = torch.randn(9, 3)
    embedding = nn.Embedding.from_pretrained(old.clone(), freeze=False)
    parameter = embedding.weight
    resize_embeddings(embedding, 12)
    assert torch.equal(embedding.weight[:9], old)
    assert embedding.weight is parameter


def test_new_rows_are_drawn_around_the_mean_of_the_old_ones() -> None:
    """4.46 takes no covariance for positive definite, and makes every new row the mean."""
    old = torch.randn(200, 3, dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 5.0]], dtype=torch.float64
    )
    drawn = draw_around_mean(old, 4000).double()
    spread = (drawn - old.mean(dim=0)) * 1e9**0.5
    torch.testing.assert_close(spread.T.cov(), old.T.cov(), rtol=0.2, atol=0.5)
    assert len(set(map(tuple, drawn.float().tolist()))) > 1


def test_rows_that_depend_on_each_other_give_their_mean() -> None:
    old = torch.ones(5, 3)
    assert torch.equal(draw_around_mean(old, 2), torch.ones(2, 3))


def test_one_old_token_gives_its_bias() -> None:
    old = nn.Linear(3, 1)
    new = resize_lm_head(old, 3)
    assert torch.equal(new.bias.data, old.bias.data.expand(3))


def test_biases_of_new_tokens_are_drawn_around_the_mean() -> None:
    old = nn.Linear(2, 100)
    new = resize_lm_head(old, 104)
    assert torch.equal(new.bias[:100], old.bias)
    torch.testing.assert_close(new.bias[100:], old.bias.mean().expand(4), rtol=0, atol=1e-6)


def test_bias_of_a_transposed_layer_is_kept_whole() -> None:
    """It has one for each dimension; 4.46 cuts it off at the number of tokens."""
    old = nn.Linear(2, 5)
    new = resize_lm_head(old, 3, transposed=True, mean_resizing=False)
    assert new.weight.shape == (5, 3)
    assert torch.equal(new.bias, old.bias)


@pytest.mark.parametrize("multiple", [0, -4, 2.5, "8"])
def test_multiple_that_is_none_is_refused(multiple: Any) -> None:
    with pytest.raises(InvalidResize, match="positive integer"):
        count_padded(7, multiple)


@pytest.mark.parametrize("module", [nn.Linear(2, 3), nn.EmbeddingBag(3, 2)])
def test_module_of_another_kind_is_refused(module: Any) -> None:
    with pytest.raises(InvalidResize, match=type(module).__name__) as caught:
        resize_embeddings(module, 7)
    assert isinstance(caught.value, TypeError)  # As 4.46 raises.


def test_output_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidResize, match="Embedding"):
        resize_lm_head(nn.Embedding(3, 2), 7)  # type: ignore[arg-type]


def test_resized_embeddings_stay_on_their_device_and_in_their_dtype() -> None:
    old = nn.Embedding(4, 2, device="meta", dtype=torch.float16)
    new = resize_embeddings(old, 6, mean_resizing=False)
    assert (new.weight.device.type, new.weight.dtype) == ("meta", torch.float16)
    assert new.weight.shape == (6, 2)
