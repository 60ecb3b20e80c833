"""The private loaders of 4.46, compared with 4.46.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from oracle.modules import build
from torch import nn
from windlass.errors import NoDevice, NotSupported
from windlass.modeling_utils import (
    ModuleUtilsMixin,
    _load_state_dict_into_meta_model,
    _load_state_dict_into_model,
    _move_model_to_meta,
)

if TYPE_CHECKING:
    from oracle.client import Oracle

SPEC = {"layers": [("linear", 2), ("embedding", 2), ("norm", 3)]}
SHAPES = {
    name: tuple(tensor.shape) for name, tensor in build(ModuleUtilsMixin, SPEC).state_dict().items()
}
DTYPES = (torch.float32, torch.float16, torch.float64)

_spellings = {"weight": "gamma", "bias": "beta"}


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Draw a state dict of some of the names, some spelled in the old way, maybe one too many."""
    state = {}
    for number, name in enumerate(draw(st.lists(st.sampled_from(sorted(SHAPES)), unique=True))):
        module, _, last = name.rpartition(".")
        spelled = draw(st.sampled_from([last, _spellings.get(last, last)]))
        dtype = torch.int64 if last == "num_batches_tracked" else draw(st.sampled_from(DTYPES))
        values = torch.full(SHAPES[name], number + 1, dtype=dtype)
        state[f"{module}.{spelled}"] = values
    return state | draw(st.sampled_from([{}, {"other": torch.ones(1)}]))


def _loaded(
    spec: dict[str, Any], state: dict[str, torch.Tensor], prefix: str, *, assign: Any
) -> list[Any]:
    model = build(ModuleUtilsMixin, spec)
    for tensor in model.state_dict().values():
        tensor.zero_()
    errors = _load_state_dict_into_model(model, dict(state), prefix, assign)
    return [_described(model), len(errors)]


def _described(model: nn.Module) -> dict[str, Any]:
    return {name: (t.dtype, t.device, t.tolist()) for name, t in model.state_dict().items()}


@given(checkpoints(), st.sampled_from(["", "bert."]), st.booleans(), st.booleans())
def test_model_is_filled_as_by_446(
    oracle: Oracle, state: dict[str, Any], prefix: str, assign: Any, damaged: Any
) -> None:
    state = {prefix + name: tensor for name, tensor in state.items()}
    if damaged and state:
        state[next(iter(state))] = torch.ones(7)
    case = {"module": SPEC, "state": state, "prefix": prefix, "assign": assign}
    answer = oracle.ask_one("loaders.fill", case)
    assert_same(answer, lambda: _loaded(SPEC, state, prefix, assign=assign))


@given(
    checkpoints(),
    st.none() | st.sampled_from(DTYPES),
    st.none() | st.just(["1"]),
    st.sampled_from(
        [None, {"": "cpu"}, {"layers.0": "cpu", "layers": "meta"}, {"layers.1": "cpu"}]
    ),
    st.booleans(),
)
def test_meta_model_is_filled_as_by_446(  # noqa: PLR0917
    oracle: Oracle,
    state: dict[str, Any],
    dtype: torch.dtype | None,
    kept: list[str] | None,
    device_map: dict[str, Any] | None,
    damaged: Any,
) -> None:
    if damaged and state:
        state[next(iter(state))] = torch.ones(7)
    case = {"module": SPEC, "state": state, "dtype": dtype, "kept": kept, "map": device_map}

    def ours() -> dict[str, Any]:
        model = build(ModuleUtilsMixin, SPEC).to("meta")
        _load_state_dict_into_meta_model(
            model,
            state,
            "",
            list(SHAPES),
            device_map=device_map,
            dtype=dtype,
            keep_in_fp32_modules=kept,
        )
        return {
            name: (t.dtype, t.device, None if t.is_meta else t.tolist())
            for name, t in model.state_dict().items()
        }

    assert_same(oracle.ask_one("loaders.fill_meta", case), ours)


@given(st.lists(st.sampled_from([*sorted(SHAPES), "other"]), unique=True))
def test_tensors_are_moved_to_meta_as_by_446(oracle: Oracle, keys: list[str]) -> None:
    model = build(ModuleUtilsMixin, SPEC)
    _move_model_to_meta(model, keys, "")
    ours = {name: tensor.is_meta for name, tensor in model.state_dict().items()}
    case = {"module": SPEC, "keys": keys}
    assert ours == oracle.ask_one("loaders.moved", case).value


def test_only_last_parts_are_respelled() -> None:
    model = nn.ModuleDict({"alphabeta": nn.LayerNorm(1), "gammas": nn.LayerNorm(1)})
    state = {"alphabeta.gamma": torch.zeros(1), "gammas.beta": torch.ones(1)}
    given_names = list(state)
    assert _load_state_dict_into_model(model, state, "") == []
    assert (model["alphabeta"].weight.item(), model["gammas"].bias.item()) == (0, 1)
    _load_state_dict_into_meta_model(model, state, "", ["alphabeta.weight"])
    assert list(state) == given_names


def test_module_under_two_names_is_filled_by_either() -> None:
    for name in "ab":
        model = nn.Module()
        model.a = model.b = nn.Linear(2, 2)
        state = {f"{name}.weight": torch.full((2, 2), 5.0), f"{name}.bias": torch.zeros(2)}
        assert _load_state_dict_into_model(model, state, "") == []
        assert torch.equal(model.a.weight, state[f"{name}.weight"])


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(requires_grad=False))
    _move_model_to_meta(model, ["0.weight"], "")
    assert not model[0].weight.requires_grad
    _load_state_dict_into_meta_model(model, {"0.weight": torch.ones(2, 2)}, "", ["0.weight"])
    assert not model[0].weight.requires_grad
    assert model[0].weight.sum() == 4


def test_old_weight_norm_is_respelled() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    names = ["parametrizations.weight.original0", "parametrizations.weight.original1"]
    state = {"weight_g": torch.ones(2, 1), "weight_v": torch.eye(2)}
    _load_state_dict_into_meta_model(model, state, "", names)
    assert torch.equal(model.weight, torch.eye(2))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device_map": {"": "disk"}}, NotSupported),
        ({"device_map": {"other": 0}}, NoDevice),
        ({"hf_quantizer": object()}, NotSupported),
        ({"state_dict_index": {}}, NotSupported),
    ],
)
def test_what_is_not_there_yet_is_refused(options: dict[str, Any], error: type) -> None:
    model = nn.Linear(2, 2)
    state = {"weight": torch.zeros(2, 2)}
    with pytest.raises(error):
        _load_state_dict_into_meta_model(model, state, "", ["weight"], **options)
    assert model.weight.any()
