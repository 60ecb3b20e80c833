"""The oracle is transformers 4.46.3, and what it says arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import Oracle, assert_same
from oracle.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Hashable

_keys: st.SearchStrategy[Hashable] = st.none() | st.integers() | st.text(max_size=3)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_keys, inner, max_size=3)
        | st.sets(_keys, max_size=3)
    ),
    max_leaves=8,
)


def test_it_is_the_version_that_the_documents_describe(oracle: Oracle) -> None:
    assert oracle.ask_one("itself.versions", None).value == "4.46.3"


@given(_values)
def test_values_survive_the_way(value: Any) -> None:
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).reshape(2, 3).T,
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.empty(2, 0),
        torch.tensor([True, False]),
    ],
    ids=str,
)
def test_tensors_survive_the_way(oracle: Oracle, tensor: torch.Tensor) -> None:
    back = oracle.ask_one("itself.echo", tensor).value
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)


def test_meta_tensors_dtypes_and_devices_survive_the_way(oracle: Oracle) -> None:
    sent = (torch.empty(2, device="meta"), torch.float16, torch.device("cuda", 1))
    tensor, *rest = oracle.ask_one("itself.echo", sent).value
    assert (tensor.is_meta, tensor.shape) == (True, (2,))
    assert rest == [torch.float16, torch.device("cuda", 1)]


def test_each_case_has_its_answer(oracle: Oracle) -> None:
    assert [answer.value for answer in oracle.ask("itself.echo", range(3))] == [0, 1, 2]


def test_exceptions_are_told_by_their_classes(oracle: Oracle) -> None:
    answer = oracle.ask_one("itself.fail", "why")
    assert answer.kind is UnicodeDecodeError
    assert "why" in answer.message
    with pytest.raises(AssertionError, match="UnicodeDecodeError"):
        answer.value  # noqa: B018


def test_what_is_warned_and_logged_is_told_for_each_case(oracle: Oracle) -> None:
    for answer in oracle.ask("itself.speak", ["words", "words"]):
        assert answer.warnings == [["FutureWarning", "words"]]
        assert answer.logs == [["WARNING", "words"]]


def test_outcomes_are_compared(oracle: Oracle) -> None:
    def raise_value_error() -> None:
        raise ValueError

    echoed, failed = oracle.ask_one("itself.echo", 1), oracle.ask_one("itself.fail", "")
    assert_same(echoed, lambda: 1)
    assert_same(failed, lambda: "x".encode("ascii").decode("utf-16"))
    for answer, ours in [(echoed, lambda: 2), (failed, lambda: None)]:
        with pytest.raises(AssertionError):
            assert_same(answer, ours)
    with pytest.raises(ValueError, match=r"^$"):
        assert_same(failed, raise_value_error)


def test_another_process_may_have_another_environment() -> None:
    oracle = Oracle({"HF_HUB_OFFLINE": "0"})
    assert oracle.ask_one("itself.echo", 1).value == 1
    oracle.close()
    oracle.close()
