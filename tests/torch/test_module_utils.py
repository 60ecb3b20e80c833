"""`ModuleUtilsMixin` and what modules hold, compared with transformers 4.46.3."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from oracle.modules import build
from torch import nn
from windlass.errors import NoTensors
from windlass.modeling_utils import (
    ModuleUtilsMixin,
    get_first_parameter_dtype,
    get_parameter_device,
    get_parameter_dtype,
    get_state_dict_dtype,
    get_state_dict_float_dtype,
)
from windlass.torch import memory_hooks

if TYPE_CHECKING:
    from oracle.client import Oracle

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
DTYPES = (*FLOATS, torch.int8, torch.bool)
TINY = {"layers": [("linear", 2)]}

_kinds = ["linear", "embedding", "norm", "relu", "integers", "attribute"]


@st.composite
def module_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a description of a module, some of its weights tied, some frozen."""
    layers = draw(st.lists(st.tuples(st.sampled_from(_kinds), st.integers(1, 3)), max_size=5))
    weighted = [n for n, (kind, _) in enumerate(layers) if kind in {"linear", "embedding"}]
    ties = []
    if len(weighted) > 1:
        one, other = draw(st.permutations(weighted))[:2]
        if draw(st.booleans()):
            ties.append((one, other))
    names = [f"layers.{n}.{part}" for n in weighted for part in ("weight", "bias")]
    names += [f"layers.{n}.weight" for n, (kind, _) in enumerate(layers) if kind == "integers"]
    frozen = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    integers = [name for name in names if layers[int(name.split(".")[1])][0] == "integers"]
    return {
        "layers": layers,
        "tied": ties,
        "frozen": sorted({*frozen, *integers}),
        "dtype": draw(st.sampled_from(FLOATS)),
    }


@given(module_specs())
def test_counts_are_those_of_446(oracle: Oracle, spec: dict[str, Any]) -> None:
    model = build(ModuleUtilsMixin, spec)
    ours = [
        *[model.num_parameters(one, two) for one in (False, True) for two in (False, True)],
        model.floating_point_ops({"input_ids": torch.zeros(2, 3)}),
        model.floating_point_ops({"other": 1}, exclude_embeddings=False),
    ]
    assert ours == oracle.ask_one("modules.counts", spec).value


@given(module_specs())
def test_dtypes_are_those_of_446(oracle: Oracle, spec: dict[str, Any]) -> None:
    model = build(ModuleUtilsMixin, spec)
    ours = [model.dtype, get_parameter_dtype(model)]
    assert ours == oracle.ask_one("modules.dtypes", spec).value


@given(module_specs())
def test_the_first_tensor_is_that_of_446(oracle: Oracle, spec: dict[str, Any]) -> None:
    model = build(ModuleUtilsMixin, spec)
    answer = oracle.ask_one("modules.first", spec)
    if answer.error:  # 4.46 lets its StopIteration out.
        assert answer.error[0] == "StopIteration"
        for question in (get_first_parameter_dtype, get_parameter_device):
            with pytest.raises(NoTensors, match="Built"):
                question(model)
        return
    assert [get_first_parameter_dtype(model), model.device] == answer.value


@given(st.lists(st.sampled_from(DTYPES), max_size=3))
def test_dtypes_of_a_state_dict_are_those_of_446(oracle: Oracle, dtypes: list[torch.dtype]) -> None:
    state = {str(n): torch.zeros(1, dtype=dtype) for n, dtype in enumerate(dtypes)}
    case = {"function": "get_state_dict_float_dtype", "arguments": [state]}
    assert_same(oracle.ask_one("modules.helper", case), lambda: get_state_dict_float_dtype(state))
    answer = oracle.ask_one("modules.helper", {**case, "function": "get_state_dict_dtype"})
    if not answer.error:
        assert get_state_dict_dtype(state) == answer.value
    elif dtypes:  # 4.46 asks its dictionary for an iterator in a way that no dictionary has.
        assert answer.error[0] == "TypeError"
        assert get_state_dict_dtype(state) == dtypes[0]
    else:
        with pytest.raises(NoTensors, match="found none"):
            get_state_dict_dtype(state)


def _call(oracle: Oracle, spec: dict[str, Any], method: str, *arguments: Any) -> None:
    """Compare one call of a method, to the bit."""
    case = {"module": spec, "method": method, "arguments": list(arguments)}
    model = build(ModuleUtilsMixin, spec)
    assert_same(
        oracle.ask_one("modules.call", case),
        lambda: getattr(model, method)(*arguments),
        same=_equal,
    )


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    return one.dtype == other.dtype and torch.equal(one, other)


def _mask(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    ones = torch.arange(torch.Size(shape).numel()).reshape(shape) % 3 != 1
    return ones.to(dtype)


_sizes = st.integers(1, 3)
_mask_dtypes = st.sampled_from([torch.float32, torch.int64, torch.float16])


@given(st.lists(_sizes, min_size=2, max_size=3), _mask_dtypes, st.sampled_from(FLOATS))
def test_inverted_mask_is_that_of_446(
    oracle: Oracle, shape: list[int], dtype: torch.dtype, model_dtype: torch.dtype
) -> None:
    spec = {**TINY, "dtype": model_dtype}
    _call(oracle, spec, "invert_attention_mask", _mask(shape, dtype))


@given(_sizes, _sizes, st.integers(0, 2), _mask_dtypes)
def test_decoder_mask_is_that_of_446(
    oracle: Oracle, batch: int, length: int, before: int, dtype: torch.dtype
) -> None:
    mask = _mask([batch, length + before], dtype)
    method = "create_extended_attention_mask_for_decoder"
    _call(oracle, TINY, method, (batch, length), mask)


@given(
    st.lists(_sizes, min_size=1, max_size=4),
    _mask_dtypes,
    st.booleans(),
    st.none() | st.sampled_from(FLOATS),
)
def test_extended_mask_is_that_of_446(
    oracle: Oracle, shape: list[int], dtype: torch.dtype, decoder: Any, wanted: Any
) -> None:
    spec = {**TINY, "decoder": decoder}
    arguments = (_mask(shape, dtype), (shape[0], shape[-1]), None, wanted)
    _call(oracle, spec, "get_extended_attention_mask", *arguments)


@pytest.mark.parametrize("decoder", [False, True])
def test_device_of_a_mask_is_deprecated(decoder: Any) -> None:
    model = build(ModuleUtilsMixin, {**TINY, "decoder": decoder})
    with pytest.warns(FutureWarning, match="`device`"):
        model.get_extended_attention_mask(torch.ones(1, 2), (1, 2), torch.device("cpu"))


@given(
    st.none() | st.lists(_sizes, min_size=1, max_size=2) | st.just([2, 1, 2, 1, 1]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(FLOATS),
)
def test_head_mask_is_that_of_446(
    oracle: Oracle, shape: list[int] | None, layers: int, chunked: Any, dtype: torch.dtype
) -> None:
    mask = None if shape is None else _mask(shape, torch.float32)
    _call(oracle, {**TINY, "dtype": dtype}, "get_head_mask", mask, layers, chunked)


@pytest.mark.parametrize("shape", [[2, 2, 2], [1, 1, 1, 1]])
def test_head_mask_of_other_dimensions_is_a_value_error(oracle: Oracle, shape: list[int]) -> None:
    case = {"module": TINY, "method": "get_head_mask", "arguments": [torch.ones(shape), 2]}
    assert oracle.ask_one("modules.call", case).kind is AssertionError
    with pytest.raises(ValueError, match="head mask"):
        build(ModuleUtilsMixin, TINY).get_head_mask(torch.ones(shape), 2)


def test_mask_of_other_dimensions_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"\[3\]"):
        build(ModuleUtilsMixin, TINY).invert_attention_mask(torch.ones(3))


def test_missing_input_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    model = build(ModuleUtilsMixin, TINY)
    with caplog.at_level(logging.WARNING):
        assert [model.estimate_tokens({"other": 1}) for _ in range(2)] == [0, 0]
    assert len(caplog.records) == 1
    assert "`input_ids`" in caplog.text


def test_parameters_of_four_bits_count_twice_their_bytes() -> None:
    class Params4bit(nn.Parameter):
        pass

    model = build(ModuleUtilsMixin, {"layers": []})
    packed = torch.zeros(6, dtype=torch.uint8)
    model.weight = Params4bit(packed, requires_grad=False)
    assert model.num_parameters() == 6
    model.is_loaded_in_4bit = True
    assert model.num_parameters() == 12


def test_memory_hooks_count_what_a_pass_took(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(ModuleUtilsMixin, TINY)
    resident = iter([0, 10, 25, 100, 103])
    monkeypatch.setattr(memory_hooks, "_resident_bytes", lambda: next(resident))
    model.add_memory_hooks()
    layer = model.layers[0]
    layer(torch.zeros(1, 2))
    assert (layer.mem_rss_diff, model.mem_rss_diff) == (15, 0)
    layer(torch.zeros(1, 2))
    assert layer.mem_rss_diff == 18
    model.reset_memory_hooks_state()
    assert [one.mem_rss_diff for one in model.modules()] == [0, 0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_grows_with_what_is_touched() -> None:
    before = memory_hooks._resident_bytes()
    held = torch.ones(1 << 24)
    assert memory_hooks._resident_bytes() - before > held.nbytes // 2


def test_replica_is_judged_by_its_attributes() -> None:
    spec = {"layers": [("relu", 1), ("attribute", 2)]}
    model = build(ModuleUtilsMixin, spec)
    assert (model.dtype, get_first_parameter_dtype(model)) == (torch.float64, torch.float64)
    assert get_parameter_device(model) == torch.device("cpu")
